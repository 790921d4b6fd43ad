"""Owns scaling grey values of more than 8 bits to uint8: DICOM images, CT volumes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Window:
    """Values shown as black and as white, with a linear ramp between them.

    Parameters
    ----------
    low, high
        In the unit of the values, such as Hounsfield units; ``low < high``.
    """

    low: float
    high: float

    def to_uint8(self, values: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Scale values to 0 to 255, clipped to that range; NaN becomes 0."""
        wide = np.nan_to_num(values.astype(np.float32), nan=self.low)
        shown = (wide - np.float32(self.low)) * np.float32(255 / (self.high - self.low))
        return np.rint(shown.clip(0, 255)).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """Options of opening slides that override their metadata; None keeps the file's value.

    Parameters
    ----------
    mpp
        Micrometres per pixel of level 0.
    window
        Values shown as black and as white in plain DICOM images and volumes.
    scene
        Number (from 1) or name of the image to read from a file that holds several.
    icc
        Whether to convert colours to sRGB with the file's ICC profile.
    """

    mpp: float | None = None
    window: Window | None = None
    scene: str | None = None
    icc: bool = False


# Shows lung, soft tissue and vessels; for CT files that state no window.
HOUNSFIELD = Window(-1200, 600)


def grey_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat grey pixels, ``(H, W)``, as RGB, ``(H, W, 3)``."""
    return np.repeat(pixels[:, :, None], 3, axis=2)
