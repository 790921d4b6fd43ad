"""Owns local copies of slides of an object store: the current slide, and the next one.

Whatever has no local copy is read from the object store.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import WsiSegError
from wsi_seg.files.object_path import object_path
from wsi_seg.files.stage import SLIDES, fetch, staging
from wsi_seg.geometry import Region
from wsi_seg.inference.task import StripTask
from wsi_seg.store import Multiscale, SlideStore, open_image
from wsi_seg.store.names import METADATA

logger = logging.getLogger(__name__)


@contextmanager
def staged(tasks: Sequence[StripTask], folder: Path | None) -> Iterator[Sequence[StripTask]]:
    """Make tasks read slides of an object store from local copies.

    Parameters
    ----------
    tasks
        Tasks in processing order.
    folder
        Local folder for the copies; None for no copies. Local slides are not copied.

    Yields
    ------
    Sequence[StripTask]
        The same tasks; those of remote slides read their images from the copies.
    """
    remote = [task for task in tasks if object_path(_store(task).path) is not None]
    if folder is None or not remote:
        yield tasks
        return
    numbers = {task: number for number, task in enumerate(remote)}
    with _Copies(remote, folder) as copies:
        yield [
            replace(task, store=copies.store(numbers[task])) if task in numbers else task
            for task in tasks
        ]


def _store(task: StripTask) -> SlideStore:
    assert isinstance(task.store, SlideStore)
    return task.store


@dataclass(frozen=True, slots=True, eq=False)
class _StagedImage(Multiscale):
    """Image that is read from its local copy while there is one."""

    copies: "_Copies"
    number: int

    def read(
        self, region: Region, *, cached: bool = True, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        with self.copies.reading(self.number) as image:
            return image.read(region, cached=cached, out=out)


class _Copies:
    """Copies of slides, at most two at a time; older ones are removed once their reads finish."""

    def __init__(self, tasks: Sequence[StripTask], folder: Path) -> None:
        self._tasks, self._folder = tasks, folder
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._current = -1
        self._readers = [0] * len(tasks)
        self._kept: dict[int, Future[Multiscale]] = {}
        self._folders: dict[int, ExitStack] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="wsi-stage")

    def __enter__(self) -> "_Copies":
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for made in self._folders.values():
            made.close()

    def store(self, number: int) -> SlideStore:
        """Return a slide whose image is read from its copy."""
        store = _store(self._tasks[number])
        image = _StagedImage(**store.image.parts(), copies=self, number=number)
        return replace(store, image=image)

    @contextmanager
    def reading(self, number: int) -> Iterator[Multiscale]:
        """Yield the image to read a slide from; a copy is kept until the read finishes."""
        remote = _store(self._tasks[number]).image
        with self._lock:
            self._readers[number] += 1
            if number > self._current:
                self._current = number
                self._remove_older()
                self._order(number)
            copy = self._kept.get(number)
        try:
            yield remote if copy is None else copy.result()
        finally:
            with self._lock:
                self._readers[number] -= 1
                self._remove_older()
                self._order(self._current + 1)

    def _order(self, number: int) -> None:
        """Start to fetch a slide, unless there are two copies."""
        if number < len(self._tasks) and number not in self._kept and len(self._kept) < SLIDES:
            self._folders[number] = ExitStack()
            self._kept[number] = self._pool.submit(self._fetch, number)

    def _remove_older(self) -> None:
        for number in [one for one in self._kept if one < self._current]:
            if not self._readers[number] and self._kept[number].done():
                del self._kept[number]
                self._folders.pop(number).close()

    def _fetch(self, number: int) -> Multiscale:
        """Fetch what the plans of a slide read: metadata, and all chunks of their levels."""
        task, store = self._tasks[number], _store(self._tasks[number])
        root = object_path(store.path)
        assert root is not None
        levels = {str(plan.level) for plan in task.plans}
        try:
            folder = self._folders[number].enter_context(staging(self._folder)) / store.name
            sizes = {}
            for path, size in root.sizes().items():
                inside = path.relative_to(root).parts
                if inside[0] in levels or (inside[-1] == METADATA and len(inside) <= 2):
                    sizes[path] = size
            files = {path: folder / path.relative_to(root) for path in sizes}
            fetch(sizes, files, is_wanted=lambda: not self._ended.is_set())
            return open_image(folder)
        except WsiSegError as error:
            if self._ended.is_set():
                return store.image
            logger.warning("%s is read from the object store: %s", store.name, error)
            return store.image
