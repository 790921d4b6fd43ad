"""Owns inference: plan the tiles, stream them through a model, blend, write."""
