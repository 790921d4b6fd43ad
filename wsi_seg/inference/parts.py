"""Owns the partition of a run into parts, the units of work of a worker."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from wsi_seg.inference.task import StripTask

# Strips of one or several slides, in processing order.
Part = tuple[StripTask, ...]

# Size of a part as a share of the remaining work per worker: parts get smaller towards the end, so
# that all workers finish at about the same time. A single worker takes the full share.
_SHARE = 0.7

# A part has at most this many strips, or batches, because the work of a worker that dies is lost,
# and at least this many strips, because neighbouring parts both predict a row of tiles.
_MOST_STRIPS, _FEWEST_STRIPS = 16, 2
_BATCHES = 8

# A part can be larger by this factor to end with a slide, which then is not cut.
_STRETCH = 1.5


def partition(tasks: Sequence[StripTask], *, workers: int, batch: int) -> Iterator[Part]:
    """Partition tasks into parts of decreasing size (guided scheduling).

    Every strip is in exactly one part. Parts end at the ends of slides if possible. Small slides
    share a part to fill a batch, because the last batch of a part is padded.

    Parameters
    ----------
    tasks
        Remaining strips of each slide, in processing order.
    workers
        Number of parts that are processed at a time.
    batch
        Tiles per forward pass.

    Yields
    ------
    Part
        Neighbouring strips.
    """
    left = float(sum(task.tiles for task in tasks))
    part: list[StripTask] = []
    wanted = most = tiles = 0.0
    for task in tasks:
        strips = sorted(task.strips)
        each = task.tiles / max(1, len(strips))  # the mean, because parts need not be equal
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
                # Pieces of a slide have equal sizes, without a short one at the end.
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
    """Return the tiles of the next part, and the most if it ends with a slide."""
    fair = left / workers
    fewest = min(fair, _FEWEST_STRIPS * each)
    largest = max(_MOST_STRIPS * each, _BATCHES * batch)
    share = fair * (_SHARE if workers > 1 else 1.0)
    wanted, most = (max(size, fewest) for size in (share, fair))
    return max(batch, min(wanted, largest)), max(batch, min(most, _STRETCH * largest))
