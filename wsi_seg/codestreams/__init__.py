"""Owns parsing compressed image streams without decoding them: size, colours, comments."""
