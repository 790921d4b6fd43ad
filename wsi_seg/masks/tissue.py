"""Owns tissue detection: separating stained pixels from glass by saturation."""

from functools import reduce

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import remove_small_holes, remove_small_objects

from wsi_seg.reading.channels import largest

# Glass and scanner noise are below this saturation (0 to 255); faint stain is above.
_MIN_SATURATION = 10

# Pixels darker than this in every channel are ink, shadow or the scanner's frame.
_DARKEST = 40

# Glass is among this share of brightest pixels, and none of its channels is darker than 150.
_BRIGHTEST_SHARE = 0.05
_DARKEST_GLASS = 150

# Blurring with sigma 1.5 px reduces the standard deviation of white noise to 0.19
# (1 / (2 * 1.5 * sqrt(pi))), but hardly that of structures.
_BLUR_PX = 1.5
_NOISE_SPREAD = 0.3

# Smaller objects are dropped and smaller holes filled; in pixels of the thumbnail.
_SPECK_PX, _HOLE_PX = 64, 256


def find_tissue(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Detect tissue with Otsu's threshold on saturation (Otsu 1979).

    Saturation is the difference of the largest and smallest channel after white balancing on the
    glass, slightly blurred. Images of bare glass or noise have no tissue.

    Parameters
    ----------
    rgb
        A slide at low resolution, ``(H, W, 3)`` uint8.

    Returns
    -------
    NDArray[np.bool_]
        ``(H, W)``, True for tissue.
    """
    threshold, smooth = _threshold(rgb)
    found = (smooth > threshold) & (largest(rgb) > _DARKEST)
    found = ndimage.binary_opening(found, iterations=1)
    found = remove_small_objects(found, max_size=_SPECK_PX)
    mask: NDArray[np.bool_] = remove_small_holes(found, max_size=_HOLE_PX)
    return mask


def _threshold(rgb: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
    """Return the threshold on saturation (infinity for no tissue), and each pixel's saturation."""
    # By channel: numpy reduces a last axis of length 3 slowly.
    gains = np.float32(255) / _glass(rgb)
    white = [
        np.minimum(channel * gain, np.float32(255))
        for channel, gain in zip(np.moveaxis(rgb, 2, 0), gains, strict=True)
    ]
    saturation = reduce(np.maximum, white) - reduce(np.minimum, white)
    smooth = ndimage.gaussian_filter(saturation, sigma=_BLUR_PX)
    flat = float(smooth.max()) - float(smooth.min()) < 1
    if flat or float(smooth.std()) < _NOISE_SPREAD * float(saturation.std()):
        return np.inf, smooth
    otsu = float(threshold_otsu(smooth))  # type: ignore[no-untyped-call]
    # Half of Otsu's threshold keeps faint tissue next to strong stain, and is still above glass.
    return max(float(_MIN_SATURATION), 0.5 * otsu), smooth


def _glass(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the colour of the glass, ``(3,)``; white if no pixel is bright enough."""
    light = reduce(np.add, (channel.astype(np.uint16) for channel in np.moveaxis(rgb, 2, 0)))
    brightest = rgb[light >= np.quantile(light, 1 - _BRIGHTEST_SHARE)]
    colour: NDArray[np.float32] = np.median(brightest, axis=0).astype(np.float32)
    if colour.min() < _DARKEST_GLASS:
        return np.full(3, 255, dtype=np.float32)
    return colour
