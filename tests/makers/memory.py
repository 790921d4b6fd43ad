"""Owns in-memory stand-ins for stores and models: what tests of planning and blending need."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_seg.geometry import Extent, Region
from wsi_seg.predict.predictor import quantise
from wsi_seg.reading.array import ArrayImage
from wsi_seg.store import Multiscale, SlideStore


class MemoryImage(Multiscale):
    """Multiscale image or label whose levels are arrays ``(H, W, C)`` or ``(H, W)`` uint8.

    Parameters
    ----------
    levels
        Pixels of each level, finest first.
    mpp
        Micrometres per pixel of level 0; None if it is not known.
    chunk_px
        Side of what is said to be read at a time.
    attributes
        What wsi_seg would have noted about it.
    """

    array: ArrayImage

    def __init__(
        self,
        *levels: NDArray[np.uint8],
        mpp: float | None = None,
        chunk_px: int = 48,
        attributes: Mapping[str, object] | None = None,
    ) -> None:
        array = ArrayImage(levels, mpp, chunk_px)
        super().__init__(
            path=Path("memory"),
            name="memory",
            pyramid=array.pyramid,
            channels=None if levels[0].ndim == 2 else levels[0].shape[2],
            attributes={} if attributes is None else attributes,
            arrays=(),
        )
        # A subclass of a frozen class with slots may not set what it adds in the usual way.
        object.__setattr__(self, "array", array)

    __eq__ = object.__eq__  # the same facts do not mean the same pixels
    __hash__ = object.__hash__

    def chunk(self, level: int) -> Extent:
        return self.array.chunk(level)

    def read(
        self, region: Region, *, cached: bool = True, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        return self.array.read(region, cached=cached, out=out)


class MemoryStore(SlideStore):
    """Slide store with one image and any labels."""

    _labels: dict[str, MemoryImage]

    def __init__(self, image: MemoryImage, *, name: str = "memory", **labels: MemoryImage) -> None:
        super().__init__(path=image.path, name=name, image=image)
        object.__setattr__(self, "_labels", labels)

    def label_names(self) -> tuple[str, ...]:
        """Names of the labels."""
        return tuple(self._labels)

    def planes(self, name: str) -> MemoryImage:
        """Label of this name."""
        return self._labels[name]


class PixelPredictor:
    """Pointwise model: the probability of each pixel depends on its own colour alone.

    Parameters
    ----------
    function
        Maps ``(B, T, T, 3)`` uint8 to probabilities ``(B, C, T, T)`` float32.
    channels
        Number of classes.
    """

    def __init__(
        self, function: Callable[[NDArray[np.uint8]], NDArray[np.float32]], *, channels: int = 1
    ) -> None:
        self._function = function
        self.channels = channels
        self.device = torch.device("cpu")
        self.tiles = 0

    def predict(self, tiles: torch.Tensor) -> torch.Tensor:
        """Apply the function to every pixel."""
        self.tiles += len(tiles)
        return quantise(torch.from_numpy(np.ascontiguousarray(self._function(tiles.numpy()))))


def red_as_probability(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Red channel / 255 as the only class."""
    red: NDArray[np.float32] = tiles[..., 0].astype(np.float32) / np.float32(255)
    return red[:, None]
