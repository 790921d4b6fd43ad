"""Owns networks that are ready to predict: tiles in, probabilities out; they know no slide."""
