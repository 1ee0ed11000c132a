"""Detectors: one rule family per file, listed in audit.rulebook."""
