"""Owns tiling slide files into stores."""
