"""What moved between two aligned checkpoints, measured in one streaming pass."""
