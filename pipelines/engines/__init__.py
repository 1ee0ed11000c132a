"""hubaudit: where the jobs of a fleet run; `seam` says what an engine is, one module per engine beside it."""
