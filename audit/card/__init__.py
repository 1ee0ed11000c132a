"""Card checks: what the card declares against what was observed, one check family per file."""
