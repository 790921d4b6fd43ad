"""Owns rasterizing polygons to label maps, by region, at any downsample."""

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize as burn
from rasterio.transform import Affine

from wsi_seg.annotations import Annotation
from wsi_seg.classes import BACKGROUND, BACKGROUND_NAME, IGNORE, IGNORE_NAME, ClassTable
from wsi_seg.geometry import Region

# Ids of names that are drawn but are not classes.
SPECIAL_IDS = {IGNORE_NAME: IGNORE, BACKGROUND_NAME: BACKGROUND}


class Rasterizer:
    """Draws the annotations of one slide; finds those in a region with a spatial index.

    Parameters
    ----------
    items
        Structures in drawing order: later ones cover earlier ones.
    classes
        Class ids. Structures of the class ``ignore`` are drawn as 255, those of ``_background_`` as
        0; other classes that are not in the table are skipped.
    """

    def __init__(self, items: Sequence[Annotation], classes: ClassTable) -> None:
        ids = SPECIAL_IDS | {entry.name: entry.id for entry in classes}
        kept = [item for item in items if item.class_name in ids]
        self._geometries = np.array([item.geometry for item in kept], dtype=object)
        self._ids = [ids[item.class_name] for item in kept]
        self._tree = shapely.STRtree(self._geometries)

    @classmethod
    def of_doubts(cls, items: Sequence[Annotation], classes: ClassTable) -> "Rasterizer":
        """Draw ``1 - weight`` of each structure, in steps of 1/255, instead of ids."""
        drawer = cls(items, classes)
        kept = [item for item in items if item.class_name in {*SPECIAL_IDS, *classes.names}]
        drawer._ids = [round(255 * (1 - item.weight)) for item in kept]
        return drawer

    def draw(
        self, region: Region, downsample: tuple[float, float], *, samples: int = 1
    ) -> NDArray[np.uint8]:
        """Draw the label map of a region; the structure at a pixel's centre decides its id.

        Parameters
        ----------
        region
            Region in pixels of some level; it may extend beyond the slide.
        downsample
            Level-0 pixels per pixel of that level, along y and x.
        samples
            If above 1, the majority of ``samples`` x ``samples`` points in a pixel decides its id,
            which preserves areas at low resolutions.

        Returns
        -------
        NDArray[np.uint8]
            Class ids, ``(region.height, region.width)``; 0 is background.
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
        return drawn if samples == 1 else _majority(drawn, samples)


def _majority(drawn: NDArray[np.uint8], samples: int) -> NDArray[np.uint8]:
    """Return the most frequent value of the points of each pixel; the lowest of equals."""
    height, width = drawn.shape[0] // samples, drawn.shape[1] // samples
    points = drawn.reshape(height, samples, width, samples)
    best = np.zeros((height, width), dtype=np.uint8)
    most = np.zeros((height, width), dtype=np.int64)
    for value in np.unique(drawn):
        count = (points == value).sum(axis=(1, 3))
        better = count > most
        best[better], most[better] = value, count[better]
    return best
