"""Owns how much memory the importance maps of a run take, worked out before they are made."""

from wsi_seg.config import SamplingConfig

# Bytes of a cell: of its share of tissue, and of its weight as a position around objects.
_TISSUE, _WEIGHT = 1, 2

# Bytes of a cell while one layer after the other is made: its share, widened, and in blocks.
_WHILE_MADE = 4

# Bytes of what is kept of a slide besides its cells, measured with a few objects each: its store,
# its objects, the arrays of its map.
_SLIDE = 10_000


def maps_nbytes(cells: int, slides: int, sampling: SamplingConfig, *, processes: int) -> int:
    """Bytes that the maps of all slides take, and what draws from them.

    Parameters
    ----------
    cells
        Of all slides together.
    slides
        Number of slides.
    sampling
        Its layers have a byte of each cell.
    processes
        That hold them: the one that trains, and those that load patches.

    Examples
    --------
    >>> maps_nbytes(10**6, 1, SamplingConfig(), processes=1)
    10010000
    """
    mix = sampling.mix
    masks = 1 + len(mix.regions) + (mix.hard_negatives > 0)  # the first is that of objects
    layers = [mix.tissue, mix.background, mix.empty, mix.boundary, mix.hard_negatives]
    tables = sum(share > 0 for share in layers) + len(mix.regions)
    kept = cells * (_TISSUE + _WEIGHT + masks + tables) + slides * _SLIDE
    return kept * processes + cells * _WHILE_MADE
