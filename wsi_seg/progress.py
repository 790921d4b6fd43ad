"""Owns the progress protocol, and an implementation that shows nothing."""

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of long steps. The library reports it; the command line shows it."""

    def start(self, title: str, total: float, unit: str) -> None:
        """Start a step of ``total`` units (for example ``tiles`` or ``MB``)."""

    def advance(self, amount: float) -> None:
        """Report that ``amount`` more units are done."""

    def note(self, text: str) -> None:
        """Report the current activity or state of the step in a few words."""

    def finish(self) -> None:
        """End the step."""


class Silent:
    """Progress that is not shown."""

    def start(self, title: str, total: float, unit: str) -> None:
        """Do nothing."""

    def advance(self, amount: float) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""
