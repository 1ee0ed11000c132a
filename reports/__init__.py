"""hubaudit: turns one audit report into text. Pure."""
