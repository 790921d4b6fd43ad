"""Owns what only CT needs: lungs, nodules through slices, candidates, FROC (extra `volume`)."""
