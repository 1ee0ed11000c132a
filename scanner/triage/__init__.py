"""Which bytes of two checkpoints are worth reading first."""
