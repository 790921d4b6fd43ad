"""Owns the LRU cache of decoded chunks, and the thread pool that decodes them."""

import functools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np
from numpy.typing import NDArray

from wsi_seg.cores import available_cores

DEFAULT_BYTES = 256 * 2**20

Pixels = NDArray[np.uint8]


class ChunkCache:
    """Least recently used cache of read-only arrays; each array is computed by only one thread.

    Parameters
    ----------
    limit
        Size of the cache in bytes. Larger arrays are returned but not cached.
    """

    def __init__(self, limit: int = DEFAULT_BYTES) -> None:
        self._limit = limit
        self._bytes = 0
        self._kept: OrderedDict[Hashable, Pixels] = OrderedDict()
        self._making: dict[Hashable, Future[Pixels]] = {}
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of the cached arrays."""
        return self._bytes

    def resize(self, limit: int) -> None:
        """Change the size of the cache in bytes."""
        with self._lock:
            self._limit = limit
            self._shrink()

    def get(self, key: Hashable) -> Pixels | None:
        """Return the array cached under this key, or None."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def get_or_make(self, key: Hashable, make: Callable[[], Pixels]) -> Pixels:
        """Return the array cached under this key, or compute it, or wait for the computing thread.

        An error in ``make`` is raised in every waiting thread, and nothing is cached.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            future = self._making.get(key)
            mine = future is None
            if future is None:
                future = self._making[key] = Future()
        if mine:
            self._make(key, make, future)
        return future.result()

    def _make(self, key: Hashable, make: Callable[[], Pixels], future: Future[Pixels]) -> None:
        try:
            array = make()
        except BaseException as error:  # the future raises it in every waiting thread
            with self._lock:
                del self._making[key]
            future.set_exception(error)
            return
        array.flags.writeable = False
        with self._lock:
            del self._making[key]
            self._kept[key] = array
            self._bytes += array.nbytes
            self._shrink()
        future.set_result(array)

    def _shrink(self) -> None:
        while self._bytes > self._limit:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.nbytes


@functools.cache
def shared_cache() -> ChunkCache:
    """Return the cache shared by all stores of this process; a forked child gets its own."""
    return ChunkCache()


def shared_pool() -> ThreadPoolExecutor:
    """Return the thread pool that decodes for this process, one thread per available core.

    A forked child gets its own pool; a new one is created if the number of cores changes.
    """
    return _pool(available_cores())


def pool_map[T, R](work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Apply a function to all items in the shared pool, and return the results in their order.

    After an error no item is started, and those that run are waited for: the caller may then close
    what they read, and nothing is written any more.
    """
    jobs = [shared_pool().submit(work, item) for item in items]
    try:
        return [job.result() for job in jobs]
    finally:
        wait([job for job in jobs if not job.cancel()])


@functools.lru_cache(maxsize=1)  # threads of a pool exit once it is garbage-collected
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="wsi-decode")


# Locks and threads do not survive a fork: the child starts with neither.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=shared_cache.cache_clear)
    os.register_at_fork(after_in_child=_pool.cache_clear)
