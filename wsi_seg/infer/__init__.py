"""Owns inference: plan the windows, stream them through a model, blend, write."""
