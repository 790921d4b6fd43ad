"""Owns estimating the memory of a run's importance maps before they are built."""

from wsi_seg.config import SamplingConfig

# Bytes per cell: tissue fraction, and weight as a position around objects.
_TISSUE, _WEIGHT = 1, 2

# Temporary bytes per cell while a layer is built: its fraction, dilated, and in blocks.
_TEMPORARY = 4

# Bytes per slide apart from its cells: its store, objects and arrays; measured with few objects.
_SLIDE = 10_000


def maps_nbytes(cells: int, slides: int, sampling: SamplingConfig, *, processes: int) -> int:
    """Estimate the bytes that the maps of all slides and their samplers take.

    Parameters
    ----------
    cells
        Number of cells over all slides.
    slides
        Number of slides.
    sampling
        Sampling section of the recipe; each of its layers takes a byte per cell.
    processes
        Number of processes that hold the maps: the training process and the data loaders.

    Examples
    --------
    >>> maps_nbytes(10**6, 1, SamplingConfig(), processes=1)
    10010000
    """
    mix = sampling.mix
    masks = 1 + len(mix.regions) + (mix.hard_negatives > 0)  # 1 for the objects
    layers = [mix.tissue, mix.background, mix.empty, mix.boundary, mix.hard_negatives]
    tables = sum(share > 0 for share in layers) + len(mix.regions)
    kept = cells * (_TISSUE + _WEIGHT + masks + tables) + slides * _SLIDE
    return kept * processes + cells * _TEMPORARY
