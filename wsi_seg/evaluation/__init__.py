"""Owns scores: how well predictions agree with truth."""
