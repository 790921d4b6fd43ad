"""Owns how the strips of a run are shared out: parts that a worker produces in one go."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from wsi_seg.infer.output import StripTask

# Strips of one slide, or of several, in the order they are produced.
Part = tuple[StripTask, ...]

# A part is this share of what is left for each worker, so parts get smaller towards the end and all
# workers end at about the same time. One alone need not wait for others.
_SHARE = 0.7

# But not more than so many strips, or batches: what a worker that dies has done of it is lost. Nor
# fewer strips while each worker can have them: neighbouring parts both predict a row of windows.
_MOST_STRIPS, _FEWEST_STRIPS = 16, 2
_BATCHES = 8


def shared_out(tasks: Sequence[StripTask], *, workers: int, batch: int) -> Iterator[Part]:
    """Cut tasks into parts, which together have every strip once.

    Small slides share a part: its last batch is padded, so it has a whole one wherever it can.

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
    left = float(sum(task.windows for task in tasks))
    share = _SHARE if workers > 1 else 1.0
    part: list[StripTask] = []
    wanted = windows = 0.0
    for task in tasks:
        strips = sorted(task.strips)
        each = task.windows / max(1, len(strips))  # a mean will do: parts need not be equal
        while strips:
            if not part:
                wanted, windows = max(batch, _wanted(left / workers, share, each, batch)), 0.0
            missing = round((wanted - windows) / each) if each else len(strips)
            count = min(max(1, missing), len(strips))
            part.append(replace(task, strips=frozenset(strips[:count])))
            del strips[:count]
            windows, left = windows + count * each, left - count * each
            if windows >= wanted - each / 2:
                yield tuple(part)
                part = []
    if part:
        yield tuple(part)


def _wanted(left: float, share: float, each: float, batch: int) -> float:
    """Windows of the next part, where so many are left for each worker and a strip has ``each``."""
    fewest = min(left, _FEWEST_STRIPS * each)
    return min(max(share * left, fewest), max(_MOST_STRIPS * each, _BATCHES * batch))
