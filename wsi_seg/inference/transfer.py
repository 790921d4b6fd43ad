"""Owns copies between host and device: pinned buffers, CUDA streams, and memory budgets."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray


class Transfers:
    """Copies that overlap with computation on CUDA; on a CPU, uploads are not copied.

    Parameters
    ----------
    device
        Device of the networks.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._cuda = device.type == "cuda"
        self._up = _stream(device)
        self._down = _stream(device)

    def buffer(self, *shape: int) -> torch.Tensor:
        """Return an uninitialized uint8 tensor in host memory, pinned with CUDA."""
        return torch.empty(shape, dtype=torch.uint8, pin_memory=self._cuda)

    def upload(self, host: torch.Tensor) -> torch.Tensor:
        """Copy a host buffer to the device; later work on the current stream waits for it."""
        if self._up is None:
            return host
        with torch.cuda.stream(self._up):
            copied = host.to(self.device, non_blocking=True)
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self._up)
        copied.record_stream(current)
        return copied

    def download(self, source: torch.Tensor, host: torch.Tensor) -> None:
        """Start to copy a device tensor to a host buffer; `finished` waits for the copy."""
        if self._down is None:
            host.copy_(source)
            return
        self._down.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._down):
            host.copy_(source, non_blocking=True)
        source.record_stream(self._down)

    def finished(self) -> Callable[[], None]:
        """Return a function that waits for all downloads so far; callable in any thread."""
        if self._down is None:
            return _at_once
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(self._down)
        return event.synchronize


def _stream(device: torch.device) -> torch.cuda.Stream | None:
    """Create a CUDA stream for copies; None on other devices."""
    if device.type != "cuda":
        return None
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream


def _at_once() -> None:
    """Return immediately: copies on a CPU are synchronous."""


def copy_to_device(values: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """Copy small arrays to the device without synchronizing with it."""
    host = torch.from_numpy(values)
    if device.type != "cuda":
        return host.to(device)
    return host.pin_memory().to(device, non_blocking=True)


class Budget:
    """A limit for bytes in use at a time; threads wait until enough are released.

    Parameters
    ----------
    limit
        Limit in bytes, None for no limit; a larger request is granted if nothing else is in use.
    waiting
        Context manager to enter while `take` waits.
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
        """Acquire bytes, waiting until they are free."""
        if not self.try_take(count):
            with self._waiting(), self._changed:
                self._changed.wait_for(lambda: self._fits(count))
                self._used += count

    def try_take(self, count: int) -> bool:
        """Acquire bytes if they are free now; return whether they were."""
        with self._changed:
            fits = self._fits(count)
            self._used += count if fits else 0
            return fits

    def give(self, count: int) -> None:
        """Release bytes."""
        with self._changed:
            self._used -= count
            self._changed.notify_all()

    def _fits(self, count: int) -> bool:
        return self._limit is None or self._used == 0 or self._used + count <= self._limit
