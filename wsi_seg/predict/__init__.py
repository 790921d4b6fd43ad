"""Owns predictors: networks that map tiles to probabilities, without access to slides."""
