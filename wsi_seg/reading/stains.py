"""Owns stain normalisation to a reference: Macenko's and Reinhard's methods.

Both are the same chain of per-pixel steps, with parameters that are measured once per slide.
"""

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

logger = logging.getLogger(__name__)

# Stain vectors (haematoxylin, eosin; RGB optical density) and maximum concentrations of the
# reference, from the program of Macenko et al. (ISBI 2009).
_REFERENCE = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
_MAX_CONCENTRATIONS = np.array([1.9705, 1.0308])

# Optical density (natural logarithm) below which a pixel is glass; percentiles of the angles and
# the concentrations.
_GLASS = 0.15
_ANGLES = (1, 99)
_CONCENTRATION = 99

# RGB to LMS cone space, and log LMS to the decorrelated l-alpha-beta axes (Reinhard et al., 2001).
_CONES = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
_AXES = np.diag([3**-0.5, 6**-0.5, 2**-0.5]) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]])

# Mean and standard deviation on these axes of a larynx H&E slide, after Macenko normalisation.
_MEAN = np.array([-0.960, -0.099, 0.035])
_STD = np.array([0.423, 0.064, 0.016])

# Minimum number of stained pixels for a measurement.
_MIN_PIXELS = 100


@dataclass(frozen=True, slots=True, eq=False)
class StainChange:
    """Colour transform: a matrix, an affine map in log space, and a matrix back to RGB.

    Parameters
    ----------
    into, change, back
        ``(3, 3)`` matrices for colours as row vectors, with values from 1/256 to 1.
    shift
        ``(3,)``, added in log space.
    """

    into: Floats
    change: Floats
    shift: Floats
    back: Floats

    def apply(self, rgb: Pixels) -> Pixels:
        """Transform pixels, ``(..., 3)`` uint8 RGB."""
        into, change, back = (m.astype(np.float32) for m in (self.into, self.change, self.back))
        table = ((np.arange(256) + 1) / 256).astype(np.float32)
        logarithms = np.log(np.maximum(table[rgb] @ into, np.float32(1e-6)))
        light = np.exp(logarithms @ change + self.shift.astype(np.float32)) @ back
        changed: Pixels = np.rint((light * 256 - 1).clip(0, 255)).astype(np.uint8)
        return changed

    def to_json(self) -> dict[str, object]:
        """Return the measured parameters as JSON values."""
        return {"matrix": self.change.round(6).tolist(), "shift": self.shift.round(6).tolist()}


_UNCHANGED = StainChange(np.eye(3), np.eye(3), np.zeros(3), np.eye(3))


def to_reference(thumbnail: Pixels, method: Literal["macenko", "reinhard"]) -> StainChange:
    """Measure the transform of a slide to the reference; the identity if it has hardly any tissue.

    Parameters
    ----------
    thumbnail
        Thumbnail of the whole slide, ``(H, W, 3)`` uint8 RGB.
    method
        See `IntensityConfig.stain`.
    """
    light = (thumbnail.reshape(-1, 3).astype(np.float64) + 1) / 256
    stained = light[(-np.log(light) > _GLASS).all(axis=1)]
    if len(stained) < _MIN_PIXELS:
        logger.warning("a slide has hardly any stained tissue; its colours are not normalised")
        return _UNCHANGED
    return _macenko(stained) if method == "macenko" else _reinhard(stained)


def _macenko(light: Floats) -> StainChange:
    """Map the slide's two stains, at their 99th percentile, to those of the reference."""
    density = -np.log(light)
    _, vectors = np.linalg.eigh(np.cov(density.T))
    plane = vectors[:, :0:-1]  # of the two largest eigenvalues
    plane = plane * np.where(plane.sum(axis=0) < 0, -1, 1)
    angles = np.arctan2(*(density @ plane).T[::-1])
    ends = np.percentile(angles, _ANGLES)
    stains = (plane @ np.array([np.cos(ends), np.sin(ends)])).T
    # Haematoxylin absorbs more red.
    stains = stains[np.argsort(-stains[:, 0])]
    amounts = density @ np.linalg.pinv(stains)
    densest = np.maximum(np.percentile(amounts, _CONCENTRATION, axis=0), 1e-3)
    change = np.linalg.pinv(stains) @ np.diag(_MAX_CONCENTRATIONS / densest) @ _REFERENCE
    return StainChange(np.eye(3), change, np.zeros(3), np.eye(3))


def _reinhard(light: Floats) -> StainChange:
    """Match mean and standard deviation of the slide's tissue to the reference, axis by axis."""
    found = np.log(light @ _CONES.T) @ _AXES.T
    mean, spread = found.mean(axis=0), np.maximum(found.std(axis=0), 1e-3)
    inverse = np.linalg.inv(_AXES)
    change = _AXES.T @ np.diag(_STD / spread) @ inverse.T
    shift = (_MEAN - mean * _STD / spread) @ inverse.T
    return StainChange(_CONES.T, change, shift, np.linalg.inv(_CONES).T)
