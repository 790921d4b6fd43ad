"""Owns augmentation of single patches by albumentations, reproducible from a seed."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Set before the import, which otherwise checks for a newer release online.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as alb
import cv2
from skimage.color import hed_from_rgb, rgb_from_hed

from wsi_seg.config.augment import Augment, StepConfig
from wsi_seg.data.presets import PRESETS
from wsi_seg.errors import ConfigError

Pixels = NDArray[np.uint8]

# Steps that need pixels from outside the patch: a patch larger by OVERSIZE is read, augmented and
# cropped to its centre.
_SPATIAL = {"affine", "perspective", "spline", "elastic", "grid", "optical"}
OVERSIZE = 1.5

# Steps that are defined for RGB only.
_COLOUR = {"hsv", "clahe", "stain", "restain", "channel_shuffle", "compression"}

_BORDER = cv2.BORDER_REFLECT_101


class Augmenter:
    """Augments an image together with its label map.

    Parameters
    ----------
    augment
        Name of a preset, or the steps in order; see `wsi_seg.config.augment`.
    """

    def __init__(self, augment: Augment) -> None:
        cv2.setNumThreads(0)  # loader workers already use all cores
        steps = PRESETS[augment] if isinstance(augment, str) else augment
        self._pipeline = alb.Compose([_transform(step) for step in steps])
        self._seeded = list(_each(self._pipeline.transforms))
        self._larger = OVERSIZE if step_names(augment) & _SPATIAL else 1.0

    def side_to_cut(self, side: int) -> int:
        """Return the side in pixels of the square to read for a patch of this side."""
        return round(side * self._larger)

    def __call__(
        self, image: Pixels, label: Pixels, *, side: int, seeds: Sequence[int]
    ) -> tuple[Pixels, Pixels]:
        """Augment one patch.

        Parameters
        ----------
        image
            ``(H, W, C)`` uint8, H = W = `side_to_cut` of ``side``.
        label
            ``(H, W)`` uint8 class ids, or ``(H, W, K)`` uint8 planes; never interpolated.
        side
            Side of the returned patch, in pixels.
        seeds
            Integers below 2^32. The result depends on nothing else; steps use them in turn, so
            that no two steps draw the same numbers.

        Returns
        -------
        tuple of NDArray[np.uint8]
            Image ``(side, side, C)``, and label ``(side, side)`` or ``(side, side, K)``.
        """
        # In this order, because albumentations seeds the steps inside one_of like one_of itself.
        for step, transform in enumerate(self._seeded):
            transform.set_random_seed(seeds[step % len(seeds)] + step)
        changed = self._pipeline(image=image, mask=label)
        start = (len(image) - side) // 2
        centre = np.s_[start : start + side, start : start + side]
        return changed["image"][centre], changed["mask"][centre]


def require_no_colour(augment: Augment) -> None:
    """Check that no step changes colours, for images whose channels are slices of a volume.

    Raises
    ------
    ConfigError
        If a step changes colours; the message names it.
    """
    found = sorted(step_names(augment) & _COLOUR)
    if found:
        raise ConfigError(
            f"augment: {', '.join(found)} change colours, but with data.context_slices the "
            "channels are slices; use d4, or a list of steps without them"
        )


def step_names(augment: Augment) -> set[str]:
    """Return the names of steps, including nested ones."""
    found: set[str] = set()
    for step in PRESETS[augment] if isinstance(augment, str) else augment:
        found |= step.model_fields_set
        if step.one_of is not None:
            found |= step_names(step.one_of.of)
    return found


def _each(transforms: Iterable[Any]) -> Iterator[Any]:
    """Yield all transforms, each before those inside it."""
    for transform in transforms:
        yield transform
        yield from _each(getattr(transform, "transforms", ()))


def _transform(step: StepConfig) -> object:
    """Build the albumentations transform of a step."""
    if step.one_of is not None:
        return alb.OneOf([_transform(inner) for inner in step.one_of.of], p=step.one_of.p)
    return _flip(step) or _deformation(step) or _colour(step) or _degradation(step)


def _flip(step: StepConfig) -> object:
    if step.hflip is not None:
        return alb.HorizontalFlip(p=step.hflip.p)
    if step.vflip is not None:
        return alb.VerticalFlip(p=step.vflip.p)
    if step.rot90 is not None:
        return QuarterTurns(p=step.rot90.p)
    if step.d4 is not None:
        return alb.D4(p=step.d4.p)
    return None


def _deformation(step: StepConfig) -> object:
    if (affine := step.affine) is not None:
        return alb.Affine(
            scale=affine.scale,
            rotate=(-affine.rotate, affine.rotate),
            translate_percent=(-affine.shift, affine.shift),
            keep_ratio=affine.keep_ratio,
            border_mode=_BORDER,
            p=affine.p,
        )
    if (view := step.perspective) is not None:
        return alb.Perspective(scale=(0, view.limit), border_mode=_BORDER, p=view.p)
    if (spline := step.spline) is not None:
        scale = (0, 10 * spline.limit)  # in tenths of the side
        return alb.ThinPlateSpline(scale, spline.points, border_mode=_BORDER, p=spline.p)
    if (elastic := step.elastic) is not None:
        return alb.ElasticTransform(elastic.alpha, elastic.sigma, border_mode=_BORDER, p=elastic.p)
    if (grid := step.grid) is not None:
        return alb.GridDistortion(grid.steps, grid.limit, border_mode=_BORDER, p=grid.p)
    if (lens := step.optical) is not None:
        return alb.OpticalDistortion((-lens.limit, lens.limit), border_mode=_BORDER, p=lens.p)
    return None


def _colour(step: StepConfig) -> object:
    if (light := step.brightness_contrast) is not None:
        return alb.RandomBrightnessContrast(
            brightness_limit=light.brightness, contrast_limit=light.contrast, p=light.p
        )
    if (hsv := step.hsv) is not None:
        return alb.HueSaturationValue(hsv.hue, hsv.saturation, hsv.value, p=hsv.p)
    if (gamma := step.gamma) is not None:
        return alb.RandomGamma(gamma_limit=gamma.limit, p=gamma.p)
    if (clahe := step.clahe) is not None:
        tiles = (clahe.tiles, clahe.tiles)
        return alb.CLAHE(clip_limit=(1, clahe.limit), tile_grid_size=tiles, p=clahe.p)
    if (stain := step.stain) is not None:
        return StainJitter(stain.scale, stain.offset, p=stain.p)
    if (colours := step.restain) is not None:
        if colours.mean is None or colours.deviation is None:
            raise ConfigError(
                "augment.restain: got no mean or deviation; expected six numbers for each: set "
                "them, or let training measure them"
            )
        return Restain(colours.mean, colours.deviation, p=colours.p)
    if step.slice_flip is not None:
        return SliceFlip(p=step.slice_flip.p)
    if step.channel_shuffle is not None:
        return alb.ChannelShuffle(p=step.channel_shuffle.p)
    return None


def _degradation(step: StepConfig) -> object:
    if (noise := step.noise) is not None:
        return alb.GaussNoise(std_range=noise.std, p=noise.p)
    if (blur := step.blur) is not None:
        return alb.GaussianBlur(blur_limit=blur.px, p=blur.p)
    if (packed := step.compression) is not None:
        return alb.ImageCompression(quality_range=packed.quality, p=packed.p)
    if (holes := step.dropout) is not None:
        return alb.CoarseDropout(
            num_holes_range=(1, holes.holes),
            hole_height_range=holes.side,
            hole_width_range=holes.side,
            fill=0,
            p=holes.p,
        )
    return None


class QuarterTurns(alb.RandomRotate90):  # type: ignore[misc]
    """Rotate by 90, 180 or 270 degrees; the base class may also rotate by 0."""

    def get_params(self) -> dict[str, int]:
        """Draw the number of 90-degree rotations."""
        return {"factor": self.py_random.randint(1, 3)}


class SliceFlip(alb.ImageOnlyTransform):  # type: ignore[misc]
    """Reverse the channels, which flips a stack of slices."""

    def apply(self, img: Pixels, **_: object) -> Pixels:
        """Transform one image, ``(H, W, C)`` uint8."""
        return np.ascontiguousarray(img[..., ::-1])


class StainJitter(alb.ImageOnlyTransform):  # type: ignore[misc]
    """Jitter the haematoxylin, eosin and DAB channels (Ruifrok and Johnston, 2001).

    Parameters
    ----------
    scale
        Each channel is multiplied by a factor between 1 - scale and 1 + scale.
    offset
        A value between -offset and offset is added to each channel, in units of optical density.
    p
        Probability.
    """

    def __init__(self, scale: float, offset: float, p: float = 0.5) -> None:
        super().__init__(p=p)
        self.scale, self.offset = scale, offset

    def get_params(self) -> dict[str, list[float]]:
        """Draw the factors and the offsets."""
        draw = self.py_random.uniform
        return {
            "factors": [1 + draw(-self.scale, self.scale) for _ in range(3)],
            "offsets": [draw(-self.offset, self.offset) for _ in range(3)],
        }

    def apply(
        self, img: Pixels, factors: Sequence[float], offsets: Sequence[float], **_: object
    ) -> Pixels:
        """Transform one image, ``(H, W, 3)`` uint8 RGB."""
        return change_stains(img, factors, offsets)


class Restain(alb.ImageOnlyTransform):  # type: ignore[misc]
    """Match mean and standard deviation of L*, a* and b* to random values (Shen et al., 2022).

    Parameters
    ----------
    mean, deviation
        Mean and standard deviation of the normal distributions of six values: the means of L*, a*
        and b*, then their standard deviations.
    p
        Probability.
    """

    # Limits the contrast stretch of patches of glass, which have hardly any variation.
    _MAX_FACTOR = 2.0

    def __init__(self, mean: Sequence[float], deviation: Sequence[float], p: float = 0.5) -> None:
        super().__init__(p=p)
        self.mean, self.deviation = mean, deviation

    def get_params(self) -> dict[str, list[float]]:
        """Draw the target values."""
        draw = self.py_random.gauss
        drawn = [draw(m, d) for m, d in zip(self.mean, self.deviation, strict=True)]
        return {"target": drawn}

    def apply(self, img: Pixels, target: Sequence[float], **_: object) -> Pixels:
        """Transform one image, ``(H, W, 3)`` uint8 RGB."""
        lab = cv2.cvtColor(img.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        mean, spread = lab.mean(axis=(0, 1)), np.maximum(lab.std(axis=(0, 1)), 1e-3)
        centre, deviation = np.array(target[:3]), np.maximum(target[3:], 0)
        factor = np.clip(deviation / spread, 1 / self._MAX_FACTOR, self._MAX_FACTOR)
        changed = ((lab - mean) * factor + centre).astype(np.float32)
        rgb = cv2.cvtColor(changed, cv2.COLOR_LAB2RGB)
        back: Pixels = np.rint(rgb.clip(0, 1) * 255).astype(np.uint8)
        return back


def change_stains(rgb: Pixels, factors: Sequence[float], offsets: Sequence[float]) -> Pixels:
    """Scale and shift the haematoxylin, eosin and DAB channels of an image.

    Parameters
    ----------
    rgb
        ``(H, W, 3)`` uint8.
    factors, offsets
        Factor and offset (in optical density) of haematoxylin, eosin and DAB.

    Returns
    -------
    NDArray[np.uint8]
        ``(H, W, 3)``; equal to ``rgb`` for factors 1 and offsets 0.
    """
    # RGB to HED, scaling and HED to RGB are one matrix; the log of 256 values is a lookup table.
    change = (hed_from_rgb * np.asarray(factors)) @ rgb_from_hed
    shift = np.asarray(offsets) @ rgb_from_hed
    density = -np.log((np.arange(256) + 1) / 256).astype(np.float32)
    changed = density.take(rgb) @ change.astype(np.float32) + shift.astype(np.float32)
    back: Pixels = np.clip(np.rint(np.exp(-changed) * 256 - 1), 0, 255).astype(np.uint8)
    return back
