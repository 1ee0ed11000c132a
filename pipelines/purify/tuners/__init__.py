"""Tuners: ways of making a step's gradients, one file each; none imports another."""
