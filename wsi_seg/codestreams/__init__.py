"""Owns what compressed streams say of themselves: size, colours, comments; decodes nothing."""
