"""Owns reading a slide's pixels as a model sees them: at an mpp, resized, with context slices."""
