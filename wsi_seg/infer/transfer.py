"""Owns copies between host and device: pinned buffers, streams of their own, and memory limits."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray


class Transfers:
    """Copies that overlap with computing; on a CPU, which has one memory, there are hardly any.

    Parameters
    ----------
    device
        Where networks compute.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._cuda = device.type == "cuda"
        self._up = _stream(device)
        self._down = _stream(device)

    def buffer(self, *shape: int) -> torch.Tensor:
        """Uint8 host memory that the device can copy from and to, not initialised."""
        return torch.empty(shape, dtype=torch.uint8, pin_memory=self._cuda)

    def upload(self, host: torch.Tensor) -> torch.Tensor:
        """Copy of a host buffer on the device, ready for whatever is computed next."""
        if self._up is None:
            return host
        with torch.cuda.stream(self._up):
            copied = host.to(self.device, non_blocking=True)
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self._up)
        copied.record_stream(current)
        return copied

    def download(self, source: torch.Tensor, host: torch.Tensor) -> None:
        """Copy what was computed to a host buffer; `finished` says when it is there."""
        if self._down is None:
            host.copy_(source)
            return
        self._down.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._down):
            host.copy_(source, non_blocking=True)
        source.record_stream(self._down)

    def finished(self) -> Callable[[], None]:
        """Return what waits, in any thread, until all downloads so far have arrived."""
        if self._down is None:
            return _at_once
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(self._down)
        return event.synchronize


def _stream(device: torch.device) -> torch.cuda.Stream | None:
    """Queue of copies of its own; None where there is no other memory to copy to."""
    if device.type != "cuda":
        return None
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream


def _at_once() -> None:
    """Return at once: there is nothing to wait for."""


def copy_to_device(values: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """Copy small values to the device, without waiting for its computations."""
    host = torch.from_numpy(values)
    if device.type != "cuda":
        return host.to(device)
    return host.pin_memory().to(device, non_blocking=True)


class Budget:
    """Bytes that may be in use at a time; who needs more waits until others give some back.

    Parameters
    ----------
    limit
        Bytes, None for no limit; something larger is let through alone.
    waiting
        Entered while `take` waits.
    """

    def __init__(
        self,
        limit: int | None,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._limit, self._waiting = limit, waiting
        self._used = 0
        self._changed = threading.Condition()

    def take(self, count: int) -> None:
        """Wait until so many bytes are free, and use them."""
        if not self.try_take(count):
            with self._waiting(), self._changed:
                self._changed.wait_for(lambda: self._fits(count))
                self._used += count

    def try_take(self, count: int) -> bool:
        """Use so many bytes if they are free now."""
        with self._changed:
            fits = self._fits(count)
            self._used += count if fits else 0
            return fits

    def give(self, count: int) -> None:
        """Give bytes back."""
        with self._changed:
            self._used -= count
            self._changed.notify_all()

    def _fits(self, count: int) -> bool:
        return self._limit is None or self._used == 0 or self._used + count <= self._limit
