"""Owns turning the samples a TIFF holds into RGB: grey, palette, 16 bit, YCbCr, alpha."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Model = Literal["rgb", "grey", "white-is-zero", "palette", "ycbcr"]


@dataclass(frozen=True, slots=True, eq=False)
class Colour:
    """What the samples of a slide mean.

    Parameters
    ----------
    model
        Colour model of the samples.
    bits
        Significant bits of a sample; the full range is scaled to 0 to 255.
    palette
        ``(N, 3)`` uint8 for the model ``palette``.
    """

    model: Model
    bits: int
    palette: NDArray[np.uint8] | None = None

    def to_rgb(self, samples: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Convert samples to RGB; alpha and other extra samples are left out.

        Parameters
        ----------
        samples
            ``(H, W, S)`` bool or unsigned integers.

        Returns
        -------
        NDArray[np.uint8]
            ``(H, W, 3)``.
        """
        if self.model == "palette" and self.palette is not None:
            return np.asarray(self.palette[samples[:, :, 0].astype(np.intp)])
        colours = 1 if self.model in {"grey", "white-is-zero"} else 3
        pixels = self._scaled(samples[:, :, :colours])
        if self.model == "white-is-zero":
            pixels = 255 - pixels
        if self.model == "ycbcr":
            return ycbcr_to_rgb(pixels)
        return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))

    def _scaled(self, samples: NDArray[np.generic]) -> NDArray[np.uint8]:
        if self.bits == 8:
            return samples.astype(np.uint8, copy=False)
        full = (1 << self.bits) - 1
        wide = samples.astype(np.uint32)
        scaled: NDArray[np.uint8] = ((wide * 255 + full // 2) // full).astype(np.uint8)
        return scaled


def ycbcr_to_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert full-range YCbCr to RGB, by the formula of JFIF 1.02 (ITU-R BT.601)."""
    y, cb, cr = (pixels[:, :, i].astype(np.float32) for i in range(3))
    cb, cr = cb - 128, cr - 128
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=2)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
