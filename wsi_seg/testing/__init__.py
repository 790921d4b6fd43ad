"""Owns made-up slides with known content, for tests and the demo, and hypothesis strategies."""
