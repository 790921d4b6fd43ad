"""Owns CT: lung masks, linking objects across slices, candidates, FROC (extra `volume`)."""
