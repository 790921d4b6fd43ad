"""Owns the tissue mask: stained px told from glass by their saturation."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import remove_small_holes, remove_small_objects

# Glass and scanner noise stay below this saturation (0 to 255); faint stain lies above.
_LEAST_SATURATION = 10

# Px darker than this in every channel are ink, shadow or the scanner's frame.
_DARKEST = 40


def find_tissue(
    rgb: NDArray[np.uint8], *, speck_px: int = 64, hole_px: int = 256
) -> NDArray[np.bool_]:
    """Find tissue by Otsu's threshold on saturation (Otsu 1979).

    Saturation is the difference of the largest and the smallest channel, slightly blurred. An
    image without stain has no tissue: the threshold never falls below that of noise on glass.

    Parameters
    ----------
    rgb
        ``(H, W, 3)`` uint8, a slide at low resolution.
    speck_px, hole_px
        Smaller pieces are dropped, smaller holes filled.

    Returns
    -------
    NDArray[np.bool_]
        ``(H, W)``, True on tissue.
    """
    saturation = rgb.max(axis=2) - rgb.min(axis=2)
    smooth = ndimage.gaussian_filter(saturation.astype(np.float32), sigma=1.5)
    if float(smooth.max()) - float(smooth.min()) < 1:
        threshold = float(_LEAST_SATURATION)
    else:
        # Faint tissue beside strong stain: half of Otsu's threshold still lies above glass.
        threshold = max(_LEAST_SATURATION, 0.5 * float(threshold_otsu(smooth)))  # type: ignore[no-untyped-call]
    found = (smooth > threshold) & (rgb.max(axis=2) > _DARKEST)
    found = ndimage.binary_opening(found, iterations=1)
    found = remove_small_objects(found, max_size=speck_px)
    mask: NDArray[np.bool_] = remove_small_holes(found, max_size=hole_px)
    return mask
