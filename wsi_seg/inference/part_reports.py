"""Owns the progress reports of workers: strips on disk, and tiles predicted.

Strips are recorded soon after they are written, so that little is lost if the client is stopped.
"""

from collections.abc import Sequence
from queue import SimpleQueue
from threading import Lock, Thread

from distributed import Client

from wsi_seg.inference.output import SlideOutput
from wsi_seg.inference.parts import Part
from wsi_seg.inference.save import StripRecord
from wsi_seg.progress import Progress

# Report of a worker: first slide and strip of its part, its tiles so far, and the strips written
# since its last report, each with its slide.
Report = tuple[str, int, float, list[tuple[str, dict[str, object]]]]


def part_key(part: Part) -> tuple[str, int]:
    """Return the key of a part: its first slide, and the first strip of that slide."""
    return part[0].store.name, min(part[0].strips)


class PartReports:
    """Records strips and advances progress from reports of workers and from finished parts.

    Parameters
    ----------
    client
        Client of the cluster.
    topic
        Topic on which workers publish a `Report`.
    outputs
        Slides of the parts.
    progress
        Advanced by the number of tiles, from another thread too.
    """

    def __init__(
        self, client: Client, topic: str, outputs: Sequence[SlideOutput], progress: Progress
    ) -> None:
        self._client, self._topic, self._progress = client, topic, progress
        self._outputs = {output.plan.slide: output for output in outputs}
        self._left = {output.plan.slide: set(output.task.strips) for output in outputs}
        self._shown: dict[tuple[str, int], float] = {}
        self._done: set[tuple[str, int]] = set()
        self._lock = Lock()
        self._heard: SimpleQueue[Report | None] = SimpleQueue()
        self._error: BaseException | None = None
        self._thread = Thread(target=self._listen, name="wsi-reports", daemon=True)

    def __enter__(self) -> "PartReports":
        self._thread.start()
        self._client.subscribe_topic(self._topic, lambda event: self._heard.put(event[1]))
        return self

    def __exit__(self, *_: object) -> None:
        self._client.unsubscribe_topic(self._topic)
        self._heard.put(None)
        self._thread.join()

    def done(self, part: Part, records: Sequence[Sequence[StripRecord]]) -> list[SlideOutput]:
        """Record the remaining strips of a finished part; return the slides that it completes."""
        with self._lock:
            if self._error is not None:
                raise self._error
            for task, written in zip(part, records, strict=True):
                self._record(task.store.name, written)
            self._show(part_key(part), sum(task.tiles for task in part))
            self._done.add(part_key(part))
            self._shown.pop(part_key(part), None)
            names = [task.store.name for task in part]
            return [self._outputs[name] for name in names if not self._left[name]]

    def _listen(self) -> None:
        """Process reports in a thread of its own, because the client's event loop must not wait."""
        while (report := self._heard.get()) is not None:
            slide, strip, tiles, written = report
            with self._lock:
                try:
                    for name, record in written:
                        self._record(name, [StripRecord.from_json(record)])
                except BaseException as error:
                    self._error = error
                    return
                self._show((slide, strip), tiles)

    def _record(self, slide: str, records: Sequence[StripRecord]) -> None:
        # Strips of a restarted part can be recorded already.
        left = self._left[slide]
        if fresh := [record for record in records if record.index in left]:
            self._outputs[slide].record(fresh)
            left.difference_update(record.index for record in fresh)

    def _show(self, part: tuple[str, int], tiles: float) -> None:
        # Progress of a restarted part is not shown twice.
        more = tiles - self._shown.get(part, 0.0)
        if part not in self._done and more > 0:
            self._shown[part] = tiles
            self._progress.advance(more)
