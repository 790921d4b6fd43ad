"""Owns which image of a file is the slide, by what the file says of each, never by their order.

Never the slide: what is called label, macro, thumbnail, overview or preview; the same picture at a
lower resolution; and pictures of less than a sixteenth of the largest one's pixels, which are named
in a warning. If more than one image is left, one has to be picked.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_seg.errors import SlideError, UndecidedSlideError
from wsi_seg.geometry import Extent

logger = logging.getLogger(__name__)

UNTILED = "picture without tiles"
"""Why a picture next to tiled ones is not a slide, though the file does not say so."""

_SMALL = 16
# Of two sizes of a pixel; programs round them.
_ALIKE = 1.1


@dataclass(frozen=True, slots=True)
class Scene:
    """One image of a file.

    Parameters
    ----------
    name
        What the file calls it; empty if it does not.
    extent
        Its size.
    mpp
        Micrometres per pixel, if the file says.
    aside
        Word by which the file says that it is not a slide, such as ``label``; empty if it does not.
    """

    name: str
    extent: Extent
    mpp: float | None = None
    aside: str = ""

    def __str__(self) -> str:
        return f"{self.extent} ({self.name!r})" if self.name else str(self.extent)


def main_scene(
    path: Path, scenes: Sequence[Scene], wanted: str | None = None
) -> tuple[int, int | None]:
    """Choose the image of a file that is the slide.

    Parameters
    ----------
    path
        The file, for messages.
    scenes
        All images of the file.
    wanted
        Number, from 1, or name of the image to take among those that may be the slide.

    Returns
    -------
    int
        Index of the image in ``scenes``.
    int or None
        Its number among those that may be the slide, from 1, if one was wanted.

    Raises
    ------
    SlideError
        If none may be the slide, or none is the wanted one.
    UndecidedSlideError
        If several may be, and none is wanted.
    """
    likely = [n for n, scene in enumerate(scenes) if not scene.aside]
    if not likely:
        raise SlideError(
            f"{path}: holds no slide, only its {' and '.join(scene.aside for scene in scenes)}"
        )
    whole = [n for n in likely if not any(is_reduction(scenes[n], scenes[m]) for m in likely)]
    largest = max(scenes[n].extent.area for n in whole)
    full = [n for n in whole if scenes[n].extent.area * _SMALL >= largest]
    listed = "; ".join(f"{k}: {scenes[n]}" for k, n in enumerate(full, 1))
    if wanted is not None:
        for number, n in enumerate(full, 1):
            if wanted in {str(number), scenes[n].name}:
                return n, number
        raise SlideError(f"{path}: got --scene {wanted}; expected a number or name of {listed}")
    if len(full) > 1:
        raise UndecidedSlideError(
            f"{path}: got {len(full)} images, any of which may be the slide ({listed}); pick one "
            "with --scene NUMBER or NAME"
        )
    small = [scenes[n] for n in whole if n not in full]
    untold = [scene for scene in scenes if scene.aside == UNTILED]
    for scene in [*small, *(s for s in untold if not is_reduction(s, scenes[full[0]]))]:
        logger.warning("%s: left out an image of %s next to the slide", path, scene)
    return full[0], None


def is_reduction(small: Scene, full: Scene) -> bool:
    """Whether an image shows what a larger one shows, at a lower resolution.

    Its sides are in proportion, rounded by less than one pixel, and if both say the size of a
    pixel, they show a field of the same size.
    """
    (height, width), (rows, columns) = (
        (scene.extent.height, scene.extent.width) for scene in (small, full)
    )
    if width >= columns or abs(rows * width / columns - height) >= 1 + rows / columns:
        return False
    if small.mpp is None or full.mpp is None:
        return True
    ratio = (full.extent.width * full.mpp) / (small.extent.width * small.mpp)
    return 1 / _ALIKE < ratio < _ALIKE
