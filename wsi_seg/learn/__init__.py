"""Owns training: losses, optimisers and the training run. No other package imports lightning."""
