"""Owns where the pixels of a prediction are on its slide."""

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_seg.geometry import Extent
from wsi_seg.store import Multiscale

# Digits of coordinates: fine enough that no pixel's centre changes sides.
_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Place:
    """How a prediction covers its slide.

    Parameters
    ----------
    extent
        Size of the slide's level 0.
    tall, wide
        Level-0 pixels per pixel of the prediction, along y and along x. They differ by the rounding
        of its size.
    """

    extent: Extent
    tall: float
    wide: float

    @classmethod
    def of(cls, label: Multiscale) -> "Place":
        """Read it from a label map; one from before the slide's size was noted tells it roughly."""
        own, scale = label.pyramid.extent, label.downsample
        noted = label.attributes.get("slide_extent")
        if isinstance(noted, list):
            extent = Extent(height=int(noted[0]), width=int(noted[1]))
            return cls(extent, extent.height / own.height, extent.width / own.width)
        height, width = round(own.height * scale), round(own.width * scale)
        return cls(Extent(height=height, width=width), scale, scale)

    def on_slide(self, polygons: NDArray[np.object_]) -> NDArray[np.object_]:
        """Polygons in level-0 pixels of those in pixels of the prediction."""
        factors = np.array([self.wide, self.tall])
        return np.asarray(shapely.transform(polygons, lambda xy: (xy * factors).round(_DIGITS)))
