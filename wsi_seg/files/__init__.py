"""Owns atomic file access on local disks, network file systems and in object stores."""
