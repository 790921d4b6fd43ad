"""Owns how a run is cut into parts, each of which one worker produces at a time."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from wsi_seg.inference.task import StripTask

# Strips of one slide, or of several, in the order they are produced.
Part = tuple[StripTask, ...]

# A part is this share of what is left for each worker, so parts get smaller towards the end and all
# workers end at about the same time. One alone need not wait for others.
_SHARE = 0.7

# But not more than so many strips, or batches: what a worker that dies has done of it is lost. Nor
# fewer strips while each worker can have them: neighbouring parts both predict a row of tiles.
_MOST_STRIPS, _FEWEST_STRIPS = 16, 2
_BATCHES = 8

# A part may be so many times as large where it then ends with a slide, so that nothing is cut.
_STRETCH = 1.5


def partition(tasks: Sequence[StripTask], *, workers: int, batch: int) -> Iterator[Part]:
    """Cut tasks into parts that have every strip once (guided chunking).

    Parts end where slides end if possible. Small slides share a part, so that it has a full batch:
    the last one is padded.

    Parameters
    ----------
    tasks
        What is left of each slide, in the order it should be produced.
    workers
        How many work at a time.
    batch
        Tiles of one forward pass.

    Yields
    ------
    Part
        Groups of neighbouring strips.
    """
    left = float(sum(task.tiles for task in tasks))
    part: list[StripTask] = []
    wanted = most = tiles = 0.0
    for task in tasks:
        strips = sorted(task.strips)
        each = task.tiles / max(1, len(strips))  # a mean will do: parts need not be equal
        while strips:
            if not part:
                wanted, most = _sizes(left, workers, each, batch)
                tiles = 0.0
            rest = len(strips) * each
            count = len(strips)
            if tiles + rest > most:
                if tiles >= max(wanted / 2, batch):
                    yield tuple(part)  # the next part begins with this slide
                    part = []
                    continue
                # Pieces of a slide are alike, so that none is short.
                pieces = math.ceil(rest / (wanted - tiles))
                count = math.ceil(len(strips) / pieces)
            part.append(replace(task, strips=frozenset(strips[:count])))
            del strips[:count]
            tiles, left = tiles + count * each, left - count * each
            if tiles >= wanted - each / 2:
                yield tuple(part)
                part = []
    if part:
        yield tuple(part)


def _sizes(left: float, workers: int, each: float, batch: int) -> tuple[float, float]:
    """Tiles of the next part, and of one that ends with a slide, where a strip has ``each``."""
    fair = left / workers
    fewest = min(fair, _FEWEST_STRIPS * each)
    largest = max(_MOST_STRIPS * each, _BATCHES * batch)
    share = fair * (_SHARE if workers > 1 else 1.0)
    wanted, most = (max(size, fewest) for size in (share, fair))
    return max(batch, min(wanted, largest)), max(batch, min(most, _STRETCH * largest))
