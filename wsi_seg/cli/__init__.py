"""Owns the command line: one short module per verb, each calling one library function."""
