"""Owns plug-in readers of other packages: entry points in the group ``wsi_seg.readers``."""

import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol

from wsi_seg.errors import SlideError
from wsi_seg.slides.slide import Slide

GROUP = "wsi_seg.readers"


class Opener(Protocol):
    """Callable that opens a file as a slide, such as a reader class."""

    def __call__(self, path: Path, *, mpp: float | None = None) -> Slide:
        """Open the file; mpp (micrometres per pixel of level 0) overrides its metadata."""
        ...


def open_installed(path: Path, *, mpp: float | None) -> Slide | None:
    """Open a file with the first plug-in reader, by name, that supports it; None if none does.

    Raises
    ------
    SlideError
        If a reader cannot be imported or fails; the message names it.
    """
    for entry in _installed(tuple(sys.path)):
        try:
            slide: Slide | None = entry.load()(path, mpp=mpp)
        except Exception as error:  # third-party code may raise anything
            raise SlideError(
                f"{path}: reader {entry.name!r} ({entry.value}) failed: {error}; expected a slide, "
                "or None for an unsupported file; check the file, or uninstall the reader"
            ) from error
        if slide is not None:
            return slide
    return None


def may_be_read(path: Path) -> bool:
    """Return whether a plug-in reader opens this file, or fails, so that opening reports why."""
    try:
        slide = open_installed(path, mpp=None)
    except SlideError:
        return True
    if slide is not None:
        slide.close()
    return slide is not None


@lru_cache(maxsize=1)
def _installed(search_path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """List the installed readers; cached, because the search takes longer than opening a file."""
    found = entry_points(group=GROUP)
    return tuple(sorted(found, key=lambda entry: entry.name))
