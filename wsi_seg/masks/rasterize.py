"""Owns polygons to label maps: any region at any downsample, never the whole slide."""

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize as burn
from rasterio.transform import Affine

from wsi_seg.annotations import Annotation
from wsi_seg.classes import BACKGROUND, BACKGROUND_NAME, IGNORE, IGNORE_NAME, ClassTable
from wsi_seg.geometry import Region

# Names that are drawn and are no class.
APART = {IGNORE_NAME: IGNORE, BACKGROUND_NAME: BACKGROUND}


class Rasterizer:
    """Draws the annotations of one slide; finds those of a region through a spatial index.

    Parameters
    ----------
    items
        Structures in drawing order: later ones are over earlier ones.
    classes
        Gives the ids. Structures of the class ``ignore`` become 255, those of ``_background_``
        uncover what is below them, others are left out.
    """

    def __init__(self, items: Sequence[Annotation], classes: ClassTable) -> None:
        ids = APART | {entry.name: entry.id for entry in classes}
        kept = [item for item in items if item.class_name in ids]
        self._geometries = np.array([item.geometry for item in kept], dtype=object)
        self._ids = [ids[item.class_name] for item in kept]
        self._tree = shapely.STRtree(self._geometries)

    @classmethod
    def of_doubts(cls, items: Sequence[Annotation], classes: ClassTable) -> "Rasterizer":
        """Draw instead of ids how much less than 1 each structure weighs, in steps of 1/255."""
        drawer = cls(items, classes)
        kept = [item for item in items if item.class_name in {*APART, *classes.names}]
        drawer._ids = [round(255 * (1 - item.weight)) for item in kept]
        return drawer

    def draw(
        self, region: Region, downsample: tuple[float, float], *, samples: int = 1
    ) -> NDArray[np.uint8]:
        """Label map of a region; a pixel belongs to the structure that its centre is in.

        Parameters
        ----------
        region
            Region in pixels of some level; it may stick out of the slide.
        downsample
            Level-0 pixels per pixel of that level, along y and along x.
        samples
            With more than one, a pixel belongs to what covers most of ``samples`` x ``samples``
            points in it, so that areas are true at low levels, too.

        Returns
        -------
        NDArray[np.uint8]
            ``(region.height, region.width)`` class ids, 0 where there is nothing.
        """
        tall, wide = downsample
        box = shapely.box(
            region.x * wide, region.y * tall, region.x_end * wide, region.y_end * tall
        )
        found = np.sort(self._tree.query(box))
        if not found.size:
            return np.zeros((region.height, region.width), dtype=np.uint8)
        drawn: NDArray[np.uint8] = burn(
            [(self._geometries[index], self._ids[index]) for index in found],
            out_shape=(region.height * samples, region.width * samples),
            transform=Affine(
                wide / samples, 0, region.x * wide, 0, tall / samples, region.y * tall
            ),
            fill=0,
            dtype="uint8",
        )
        return drawn if samples == 1 else _most(drawn, samples)


def _most(drawn: NDArray[np.uint8], samples: int) -> NDArray[np.uint8]:
    """Value that most points of each pixel have; of equally many the lowest."""
    height, width = drawn.shape[0] // samples, drawn.shape[1] // samples
    points = drawn.reshape(height, samples, width, samples)
    best = np.zeros((height, width), dtype=np.uint8)
    most = np.zeros((height, width), dtype=np.int64)
    for value in np.unique(drawn):
        count = (points == value).sum(axis=(1, 3))
        better = count > most
        best[better], most[better] = value, count[better]
    return best
