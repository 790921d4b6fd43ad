"""Owns checks for own readers and stores, and made-up slides for the demo and benchmarks."""
