"""Owns how probabilities become decisions: thresholds, connected components, object tables."""
