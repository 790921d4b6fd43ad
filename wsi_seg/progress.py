"""Owns how long work reports how far it is: one small protocol, and the one that stays silent."""

from typing import Protocol


class Progress(Protocol):
    """Receives how far a long step is. The command line draws it; the library only reports."""

    def start(self, title: str, total: float, unit: str) -> None:
        """Begin a step of ``total`` units (for example ``tiles`` or ``MB``)."""

    def advance(self, amount: float) -> None:
        """Report ``amount`` more units done."""

    def note(self, text: str) -> None:
        """Say what is under way, or how the step goes, in a few words."""

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
