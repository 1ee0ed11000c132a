"""hubaudit: opinions on facts. Pure: no network, no torch, no files but its own profiles."""
