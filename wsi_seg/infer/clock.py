"""Owns how long a device has computed, which a GPU does while Python goes on."""

import time

import torch


class DeviceClock:
    """Sum of the times between entering and leaving, as the device saw them.

    Parameters
    ----------
    device
        On CUDA, events on its stream are compared; elsewhere the wall clock.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._spent = 0.0
        self._begun = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def __enter__(self) -> None:
        if self._cuda:
            self._settle(keep=64)
            self._events.append((_event(), _event()))
            self._events[-1][0].record()
        else:
            self._begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if self._cuda:
            self._events[-1][1].record()
        else:
            self._spent += time.perf_counter() - self._begun

    @property
    def seconds(self) -> float:
        """Time spent so far."""
        self._settle(keep=0)
        return self._spent

    def _settle(self, keep: int) -> None:
        """Add up events that lie back, so that they do not pile up; waits for the last of them."""
        while len(self._events) > keep:
            begin, end = self._events.pop(0)
            end.synchronize()
            self._spent += begin.elapsed_time(end) / 1000


def _event() -> torch.cuda.Event:
    event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    return event
