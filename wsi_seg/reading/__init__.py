"""Owns reading a slide's pixels as model input: at an mpp, resized, with context slices."""
