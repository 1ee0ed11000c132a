"""hubaudit: reads the Hub and the weights, and states facts. Nothing here judges and nothing here writes."""
