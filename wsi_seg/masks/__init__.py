"""Owns masks: tissue detection, polygons to label maps, label maps to polygons."""

from wsi_seg.masks.objects import Objects, read_objects

__all__ = ["Objects", "read_objects"]
