"""The parts of publishing: who may be written to, what would change, and the only calls that write to the Hub."""
