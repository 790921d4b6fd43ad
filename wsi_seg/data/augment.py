"""Owns augmentation, the only door to albumentations: the same seed gives the same change."""

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Set before the import, which otherwise asks the network for a newer release.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as alb
import cv2

from wsi_seg.errors import ConfigError


class Augmenter:
    """Changes an image and its label map together.

    Parameters
    ----------
    preset
        ``none``; ``d4``: flips and quarter turns, which move px and never blend them;
        ``light``: d4, then slight changes of brightness, contrast, colour, blur and noise; or
        ``stain``: d4, any turn, scale 0.6 to 1.5, and changes of colour as strong as those
        between laboratories and scanners.

    Raises
    ------
    ConfigError
        If there is no such preset.
    """

    def __init__(self, preset: str) -> None:
        # One process per loader worker does the sharing out of cores.
        cv2.setNumThreads(0)
        self._pipeline = alb.Compose(_transforms(preset))

    def __call__(
        self, image: NDArray[np.uint8], label: NDArray[np.uint8], *, seeds: Sequence[int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Augment one patch.

        Parameters
        ----------
        image
            ``(H, W, 3)`` uint8 RGB, H = W.
        label
            ``(H, W)`` uint8 class ids.
        seeds
            Whole numbers below 2^32 that decide everything; steps use them in turn, so that two
            steps do not make the same decisions.
        """
        for step, transform in enumerate(self._pipeline.transforms):
            transform.set_random_seed(seeds[step % len(seeds)] + step)
        changed = self._pipeline(image=image, mask=label)
        return changed["image"], changed["mask"]


def _transforms(preset: str) -> list[alb.BasicTransform | alb.BaseCompose]:
    if preset == "none":
        return []
    if preset == "d4":
        return [alb.D4(p=1.0)]
    if preset == "light":
        return [
            alb.D4(p=1.0),
            alb.RandomBrightnessContrast(brightness_limit=0.15, contrast_limit=0.15, p=0.5),
            alb.HueSaturationValue(
                hue_shift_limit=10, sat_shift_limit=20, val_shift_limit=10, p=0.5
            ),
            alb.OneOf(
                [
                    alb.GaussianBlur(blur_limit=(3, 5), p=1.0),
                    alb.GaussNoise(std_range=(0.01, 0.04), p=1.0),
                ],
                p=0.2,
            ),
        ]
    if preset == "stain":
        return [
            alb.D4(p=1.0),
            alb.Affine(
                scale=(0.6, 1.5), rotate=(-45, 45), border_mode=cv2.BORDER_REFLECT_101, p=0.7
            ),
            alb.RandomBrightnessContrast(brightness_limit=0.25, contrast_limit=0.25, p=0.7),
            alb.HueSaturationValue(
                hue_shift_limit=15, sat_shift_limit=40, val_shift_limit=15, p=0.7
            ),
            alb.RandomGamma(gamma_limit=(70, 140), p=0.3),
            alb.OneOf(
                [
                    alb.GaussianBlur(blur_limit=(3, 5), p=1.0),
                    alb.GaussNoise(std_range=(0.01, 0.05), p=1.0),
                    alb.ImageCompression(quality_range=(40, 90), p=1.0),
                ],
                p=0.3,
            ),
        ]
    raise ConfigError(f"got augmentation {preset!r}; expected none, d4, light or stain")
