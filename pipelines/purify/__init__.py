"""Purification: methods behind one seam (``job``), listed in ``catalogue``, and what writes and proves the outcome."""
