"""Weight sources: one file per format behind one seam (see scanner.weights.source)."""
