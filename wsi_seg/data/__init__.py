"""Owns what the model is trained on: patches read from stores, augmented, as tensors."""
