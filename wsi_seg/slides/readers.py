"""Owns the readers of other packages: entry points of the group ``wsi_seg.readers``."""

import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol

from wsi_seg.errors import SlideError
from wsi_seg.slides.slide import Slide

GROUP = "wsi_seg.readers"


class Opener(Protocol):
    """What opens a file as a slide, such as a reader's class."""

    def __call__(self, path: Path, *, mpp: float | None = None) -> Slide:
        """Open the file; mpp, in micrometres per pixel, replaces what it says."""
        ...


def open_installed(path: Path, *, mpp: float | None) -> Slide | None:
    """Open a file by the first reader that takes it, in order of their names; None if none does.

    Raises
    ------
    SlideError
        If a reader cannot be imported or fails; it is named.
    """
    for entry in _installed(tuple(sys.path)):
        try:
            slide: Slide | None = entry.load()(path, mpp=mpp)
        except Exception as error:  # whatever code of others raises
            raise SlideError(
                f"{path}: reader {entry.name!r} ({entry.value}) failed: {error}; expected a slide, "
                "or None for a file that is not its own; check the file, or uninstall the reader"
            ) from error
        if slide is not None:
            return slide
    return None


def may_be_read(path: Path) -> bool:
    """Whether a reader takes this file; one that fails does, for opening it says what is wrong."""
    try:
        slide = open_installed(path, mpp=None)
    except SlideError:
        return True
    if slide is not None:
        slide.close()
    return slide is not None


@lru_cache(maxsize=1)
def _installed(search_path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Readers that are installed; looking for them takes longer than opening many a file."""
    found = entry_points(group=GROUP)
    return tuple(sorted(found, key=lambda entry: entry.name))
