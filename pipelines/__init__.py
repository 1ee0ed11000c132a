"""hubaudit: wires scanner, audit and reports together and acts on the world."""
