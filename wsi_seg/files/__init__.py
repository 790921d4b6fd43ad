"""Owns files and addresses: written whole or not at all, on disks, shares and in object stores."""
