"""Owns scoring predictions against the ground truth."""
