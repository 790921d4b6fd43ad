"""Owns conformance checks for readers and stores, and synthetic slides, volumes and X-rays."""
