"""Owns how slide files become stores."""
