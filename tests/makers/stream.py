"""Owns running the inference stream on slides in memory: what tests of blending need."""

from collections.abc import Collection

from wsi_seg.inference.plan import Quarantined, SlidePlan
from wsi_seg.inference.stream import Job, Sizes, TileStream
from wsi_seg.inference.strips import PendingStrip, Strip, Wanted
from wsi_seg.inference.waits import WaitTimes
from wsi_seg.predict.device import DeviceTimer
from wsi_seg.predict.predictor import TilePredictor
from wsi_seg.progress import Silent
from wsi_seg.reading.readable import Readable


def predicted(
    plan: SlidePlan,
    image: Readable,
    predictor: TilePredictor,
    *,
    strips: Collection[int] | None = None,
    batch: int = 5,
    ahead: int = 10**6,
    quarantined: list[Quarantined] | None = None,
) -> dict[int, Strip]:
    """Predict the strips of one slide, by their index, in the order in which they came.

    Parameters
    ----------
    plan, image
        The slide.
    predictor
        What predicts its tiles.
    strips
        Which strips; None is all.
    batch, ahead
        Tiles at a time, and bytes that are read ahead.
    quarantined
        Filled with tiles that cannot be read.
    """
    done: dict[int, Strip] = {}

    def sink(strip: PendingStrip) -> None:
        found = strip()
        done[found.index] = found

    wanted = frozenset(range(len(plan.strips)) if strips is None else strips)
    unread = [] if quarantined is None else quarantined
    job = Job(plan, image, wanted, (sink,), Wanted(labels=True, steps=True), unread)
    waits = WaitTimes(DeviceTimer(predictor.device))
    stream = TileStream(
        [job], [predictor], Sizes(batch, ahead, None, 2), progress=Silent(), waits=waits
    )
    sum(stream)
    return done
