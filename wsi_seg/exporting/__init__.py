"""Owns what leaves wsi_seg: polygons and pictures that other programs and people read."""
