"""Owns the mapping from pixels of a prediction to level-0 pixels of its slide."""

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_seg.geometry import Extent
from wsi_seg.store import Multiscale

# Decimals of coordinates: enough that no pixel centre moves across an outline.
_DECIMALS = 4


@dataclass(frozen=True, slots=True)
class Place:
    """Level-0 size of a slide, and the scale of a prediction on it.

    Parameters
    ----------
    extent
        Size of the slide's level 0.
    scale_y, scale_x
        Level-0 pixels per pixel of the prediction. They differ because its size is rounded.
    """

    extent: Extent
    scale_y: float
    scale_x: float

    @classmethod
    def of(cls, label: Multiscale) -> "Place":
        """Read it from a label map; estimate the slide's size for stores that do not record it."""
        own, scale = label.pyramid.extent, label.downsample
        recorded = label.attributes.get("slide_extent")
        if isinstance(recorded, list):
            extent = Extent(height=int(recorded[0]), width=int(recorded[1]))
            return cls(extent, extent.height / own.height, extent.width / own.width)
        height, width = round(own.height * scale), round(own.width * scale)
        return cls(Extent(height=height, width=width), scale, scale)

    def on_slide(self, polygons: NDArray[np.object_]) -> NDArray[np.object_]:
        """Scale polygons ``(n,)`` from pixels of the prediction to level-0 pixels."""
        factors = np.array([self.scale_x, self.scale_y])
        return np.asarray(shapely.transform(polygons, lambda xy: (xy * factors).round(_DECIMALS)))
