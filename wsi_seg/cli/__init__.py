"""Owns the command line: one short module per command, each calling one library function."""
