"""Owns reports: self-contained HTML files; only this package imports matplotlib."""
