"""Owns the report: one file that a person reads, prints and sends on; matplotlib lives here."""
