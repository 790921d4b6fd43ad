"""Owns converting stored samples to RGB: grey, palette, 16-bit, YCbCr, alpha, CIELAB."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Model = Literal["rgb", "grey", "white-is-zero", "palette", "ycbcr"]


@dataclass(frozen=True, slots=True, eq=False)
class Colour:
    """Interpretation of a slide's samples as colours.

    Parameters
    ----------
    model
        Colour model of the samples.
    bits
        Significant bits per sample; the full range is scaled to 0 to 255.
    palette
        ``(N, 3)`` uint8 for the model ``palette``.
    alpha
        Index of the alpha sample; pixels where it is 0 become white, like glass.
    """

    model: Model
    bits: int
    palette: NDArray[np.uint8] | None = None
    alpha: int | None = None

    def to_rgb(self, samples: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Convert samples to RGB; alpha above 0 and other extra samples are ignored.

        Parameters
        ----------
        samples
            ``(H, W, S)`` bool or unsigned integers.

        Returns
        -------
        NDArray[np.uint8]
            ``(H, W, 3)``, 0 to 255.
        """
        pixels = self._opaque(samples)
        if self.alpha is not None:
            clear = samples[:, :, self.alpha] == 0
            if clear.any():
                pixels = np.where(clear[:, :, None], np.uint8(255), pixels)
        return pixels

    def blank(self, samples: int) -> NDArray[np.generic]:
        """Return the samples of a white, or the lightest, pixel, ``(samples,)`` uint16."""
        full = (1 << self.bits) - 1
        values = np.full(samples, full, np.uint16)
        if self.model == "palette" and self.palette is not None:
            values[0] = self.palette.sum(axis=1, dtype=np.int64).argmax()
        if self.model == "white-is-zero":
            values[0] = 0
        if self.model == "ycbcr":
            values[1:3] = 1 << (self.bits - 1)
        return values

    def _opaque(self, samples: NDArray[np.generic]) -> NDArray[np.uint8]:
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
    """Convert full-range YCbCr to RGB, ``(H, W, 3)`` uint8, as in JFIF 1.02 (ITU-R BT.601)."""
    y, cb, cr = (pixels[:, :, i].astype(np.float32) for i in range(3))
    cb, cr = cb - 128, cr - 128
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=2)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


# CIELAB in DICOM and ICC has white point D50; sRGB has D65 (Bradford-adapted matrix).
_D50 = np.array([0.9642, 1.0, 0.8249])
_SRGB_OF_D50 = np.array(
    [[3.1339, -1.6169, -0.4906], [-0.9785, 1.9160, 0.0333], [0.0720, -0.2290, 1.4057]]
)


def cielab_to_rgb(values: Sequence[int]) -> NDArray[np.uint8]:
    """Convert DICOM's CIELAB, three numbers from 0 to 65,535, to RGB, ``(3,)`` uint8.

    See DICOM PS3.3 C.10.7.1.1.
    """
    lightness, a, b = (float(value) / 65535 for value in values)
    y = (100 * lightness + 16) / 116
    roots = np.array([y + (255 * a - 128) / 500, y, y - (255 * b - 128) / 200])
    xyz = _D50 * np.where(roots > 6 / 29, roots**3, (roots - 4 / 29) * 3 * (6 / 29) ** 2)
    linear = (_SRGB_OF_D50 @ xyz).clip(0, 1)
    shown = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    rgb: NDArray[np.uint8] = np.rint(255 * shown).astype(np.uint8)
    return rgb
