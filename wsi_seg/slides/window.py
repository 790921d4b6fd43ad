"""Owns how grey values of more than 8 bit become 0 to 255: DICOM images, CT volumes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Window:
    """Values shown as black and as white; between them grey rises linearly.

    Parameters
    ----------
    low, high
        In the values' own unit, such as Hounsfield units; ``high`` is the larger one.
    """

    low: float
    high: float

    def to_uint8(self, values: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Scale values to 0 to 255, those outside to the nearer end; NaN is black."""
        wide = np.nan_to_num(values.astype(np.float32), nan=self.low)
        shown = (wide - np.float32(self.low)) * np.float32(255 / (self.high - self.low))
        return np.rint(shown.clip(0, 255)).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """What replaces what slide files say of themselves; None leaves it to them.

    Parameters
    ----------
    mpp
        Micrometres per pixel of level 0.
    window
        Values shown as black and as white in plain DICOM images and volumes.
    scene
        Number or name of the image to take from a file with several.
    icc
        Whether colours are converted to sRGB by the file's ICC profile.
    """

    mpp: float | None = None
    window: Window | None = None
    scene: str | None = None
    icc: bool = False


# Lung, soft tissue and vessels; for CT values whose file states no window.
HOUNSFIELD = Window(-1200, 600)


def grey_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat grey, ``(H, W)``, as RGB, ``(H, W, 3)``."""
    return np.repeat(pixels[:, :, None], 3, axis=2)
