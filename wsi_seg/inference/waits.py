"""Owns the wait times of a run: computing, and waiting for reads and writes, as shares of time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from wsi_seg.predict.device import DeviceTimer


class WaitTimes:
    """Measures how long the thread that feeds a device waits, and how long the device computes.

    Parameters
    ----------
    timer
        Timer of the device.
    px_per_tile
        Mean number of output pixels per tile.
    """

    def __init__(self, timer: DeviceTimer, *, px_per_tile: float = 0.0) -> None:
        self._timer, self._px_per_tile = timer, px_per_tile
        self._tiles = 0
        self._began = time.perf_counter()
        self._reading = self._writing = 0.0
        self._last_summary = (0.0, "")
        self._timing = False

    @contextmanager
    def device(self) -> Iterator[None]:
        """Time work of the device."""
        self._timing = True
        with self._timer:
            yield
        self._timing = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Time waiting for source pixels."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._reading += time.perf_counter() - began

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Time waiting for finished strips to be written, which does not count as device time."""
        began, timing = time.perf_counter(), self._timing
        if timing:
            self._timer.__exit__()
        try:
            yield
        finally:
            self._writing += time.perf_counter() - began
            if timing:
                self._timer.__enter__()

    def shares(self) -> dict[str, float]:
        """Return the shares of time so far of device work, and of waiting for reads and writes.

        Unfinished work of the device does not count.
        """
        seconds = max(time.perf_counter() - self._began, 1e-9)
        return {
            "device": min(1.0, self._timer.seconds / seconds),
            "reading": self._reading / seconds,
            "writing": self._writing / seconds,
        }

    def summary(self, tiles: int) -> str:
        """Add tiles, and return the rate and shares as text, updated once a second."""
        self._tiles += tiles
        now = time.perf_counter()
        if now - self._last_summary[0] > 1:
            rate = self._tiles * self._px_per_tile / 1e6 / max(now - self._began, 1e-9)
            self._last_summary = (now, f"{rate:.3g} Mpx/s, {describe_shares(self.shares())}")
        return self._last_summary[1]


def describe_shares(shares: dict[str, float]) -> str:
    """Format the share of the device, and of waits of at least 2 %.

    Examples
    --------
    >>> describe_shares({"device": 0.6, "reading": 0.38, "writing": 0.01})
    'device 60 %, waiting for reading 38 %'
    """
    parts = [f"device {shares['device']:.0%}".replace("%", " %")]
    parts += [
        f"waiting for {part} {shares[part]:.0%}".replace("%", " %")
        for part in ("reading", "writing")
        if shares[part] >= 0.02
    ]
    return ", ".join(parts)
