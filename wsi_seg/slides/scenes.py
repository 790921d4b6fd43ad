"""Owns choosing which image of a file is the slide, by its metadata, never by its position.

Excluded are images called label, macro, thumbnail, overview or preview; reduced versions of another
image; and images with less than a sixteenth of the pixels of the largest, with a warning. If more
than one image remains, the user has to choose.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_seg.errors import SlideError, UndecidedSlideError
from wsi_seg.geometry import Extent

logger = logging.getLogger(__name__)

UNTILED = "image without tiles"
"""Why an image next to tiled ones is excluded, without a statement in the file."""

_MAX_AREA_RATIO = 16
# Two pixel sizes within this ratio are equal; programs round them.
_SAME_SIZE_RATIO = 1.1


@dataclass(frozen=True, slots=True)
class Scene:
    """One image of a file.

    Parameters
    ----------
    name
        Name in the file; empty if it has no name.
    extent
        Size in pixels.
    mpp
        Micrometres per pixel, if stated.
    excluded
        Why the image is not the slide, such as ``label``; empty if it may be.
    """

    name: str
    extent: Extent
    mpp: float | None = None
    excluded: str = ""

    def __str__(self) -> str:
        return f"{self.extent} ({self.name!r})" if self.name else str(self.extent)


def main_scene(
    path: Path, scenes: Sequence[Scene], requested: str | None = None
) -> tuple[int, int | None]:
    """Choose the image of a file that is the slide.

    Parameters
    ----------
    path
        The file, for messages.
    scenes
        All images of the file.
    requested
        Number (from 1) or name of the image to choose among those that may be the slide.

    Returns
    -------
    int
        Index of the image in ``scenes``.
    int or None
        Its number (from 1) among those that may be the slide, if one was requested.

    Raises
    ------
    SlideError
        If no image may be the slide, or the requested one does not exist.
    UndecidedSlideError
        If several may be the slide, and none was requested.
    """
    candidates = [n for n, scene in enumerate(scenes) if not scene.excluded]
    if not candidates:
        raise SlideError(
            f"{path}: holds no slide, only its {' and '.join(scene.excluded for scene in scenes)}"
        )
    whole = [
        n for n in candidates if not any(is_reduction(scenes[n], scenes[m]) for m in candidates)
    ]
    largest = max(scenes[n].extent.area for n in whole)
    full = [n for n in whole if scenes[n].extent.area * _MAX_AREA_RATIO >= largest]
    listed = "; ".join(f"{k}: {scenes[n]}" for k, n in enumerate(full, 1))
    if requested is not None:
        for number, n in enumerate(full, 1):
            if requested in {str(number), scenes[n].name}:
                return n, number
        raise SlideError(f"{path}: got --scene {requested}; expected a number or name of {listed}")
    if len(full) > 1:
        raise UndecidedSlideError(
            f"{path}: got {len(full)} images, any of which may be the slide ({listed}); choose one "
            "with --scene NUMBER or NAME"
        )
    small = [scenes[n] for n in whole if n not in full]
    untiled = [scene for scene in scenes if scene.excluded == UNTILED]
    for scene in [*small, *(s for s in untiled if not is_reduction(s, scenes[full[0]]))]:
        logger.warning("%s: ignored an image of %s next to the slide", path, scene)
    return full[0], None


def is_reduction(small: Scene, full: Scene) -> bool:
    """Return whether an image is a reduced version of a larger one.

    It is if both have the same aspect ratio, within a pixel of rounding, and the same field of
    view, where both state their pixel size.
    """
    (height, width), (rows, columns) = (
        (scene.extent.height, scene.extent.width) for scene in (small, full)
    )
    if width >= columns or abs(rows * width / columns - height) >= 1 + rows / columns:
        return False
    if small.mpp is None or full.mpp is None:
        return True
    ratio = (full.extent.width * full.mpp) / (small.extent.width * small.mpp)
    return 1 / _SAME_SIZE_RATIO < ratio < _SAME_SIZE_RATIO
