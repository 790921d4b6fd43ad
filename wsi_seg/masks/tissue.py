"""Owns the tissue mask: stained pixels, separated from glass by their saturation."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import remove_small_holes, remove_small_objects

# Glass and scanner noise stay below this saturation (0 to 255); faint stain is above.
_LEAST_SATURATION = 10

# Pixels darker than this in every channel are ink, shadow or the scanner's frame.
_DARKEST = 40

# Glass is among the brightest pixels, and no channel of it is darker than this.
_BRIGHTEST_SHARE = 0.05
_DARKEST_GLASS = 150

# Blurring by 1.5 px leaves white noise 0.19 of its spread (1 / (2 * 1.5 * sqrt(pi))), and nearly
# all of its spread to anything with a shape.
_BLUR_PX = 1.5
_NOISE_SPREAD = 0.3

# Smaller pieces are dropped, smaller holes filled; in pixels of the picture.
_SPECK_PX, _HOLE_PX = 64, 256


def find_tissue(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Find tissue by Otsu's threshold on saturation (Otsu 1979).

    Saturation is the difference of the largest and the smallest channel after the tint of the
    glass is taken out, slightly blurred. Bare glass and noise have no tissue.

    Parameters
    ----------
    rgb
        ``(H, W, 3)`` uint8, a slide at low resolution.

    Returns
    -------
    NDArray[np.bool_]
        ``(H, W)``, True on tissue.
    """
    threshold, smooth = _threshold(rgb)
    found = (smooth > threshold) & (rgb.max(axis=2) > _DARKEST)
    found = ndimage.binary_opening(found, iterations=1)
    found = remove_small_objects(found, max_size=_SPECK_PX)
    mask: NDArray[np.bool_] = remove_small_holes(found, max_size=_HOLE_PX)
    return mask


def _threshold(rgb: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
    """Saturation above which pixels are stained (infinite without any), and that of each pixel."""
    white = np.minimum(rgb * (np.float32(255) / _glass(rgb)), np.float32(255))
    saturation = white.max(axis=2) - white.min(axis=2)
    smooth = ndimage.gaussian_filter(saturation, sigma=_BLUR_PX)
    flat = float(smooth.max()) - float(smooth.min()) < 1
    if flat or float(smooth.std()) < _NOISE_SPREAD * float(saturation.std()):
        return np.inf, smooth
    otsu = float(threshold_otsu(smooth))  # type: ignore[no-untyped-call]
    # Faint tissue next to strong stain: half of Otsu's threshold is still above glass.
    return max(float(_LEAST_SATURATION), 0.5 * otsu), smooth


def _glass(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Colour of the glass, ``(3,)``; white where nothing in the image is bright enough."""
    light = rgb.sum(axis=2, dtype=np.uint16)
    brightest = rgb[light >= np.quantile(light, 1 - _BRIGHTEST_SHARE)]
    colour: NDArray[np.float32] = np.median(brightest, axis=0).astype(np.float32)
    if colour.min() < _DARKEST_GLASS:
        return np.full(3, 255, dtype=np.float32)
    return colour
