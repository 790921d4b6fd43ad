"""Owns turning probabilities into decisions: thresholds, connected components, object tables."""
