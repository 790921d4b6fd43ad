"""Owns training data: patches read from stores, augmented and converted to tensors."""
