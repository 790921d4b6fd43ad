"""Owns what lies between probabilities and decisions: thresholds, objects, and their search."""
