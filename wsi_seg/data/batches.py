"""Owns augmentation of batches on the network's device; labels are never interpolated.

Random parameters are drawn on the CPU from torch's generator, so nothing waits for the device.
Steps that are not implemented here run in `wsi_seg.data.augment`.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch.nn import functional

from wsi_seg.config.augment import AffineConfig, Augment, DropoutConfig, StepConfig
from wsi_seg.data import colours
from wsi_seg.data.augment import OVERSIZE
from wsi_seg.data.presets import PRESETS

# Steps that this module implements; the others run in the loader's worker processes.
_FLIPS = {"hflip", "vflip", "rot90", "d4"}
_COLOURS = {
    "brightness_contrast",
    "hsv",
    "gamma",
    "stain",
    "channel_shuffle",
    "slice_flip",
    "noise",
    "blur",
}
_KNOWN = _FLIPS | _COLOURS | {"affine", "dropout"}

# Images, then maps of the same pixels, such as labels.
Batch = tuple[torch.Tensor, ...]


def split_steps(augment: Augment) -> tuple[tuple[StepConfig, ...], tuple[StepConfig, ...]]:
    """Split augmentation steps into those for the loader's workers and those for the device.

    Those for the workers are applied first, whatever their order in the recipe.
    """
    steps = PRESETS[augment] if isinstance(augment, str) else augment
    known = [_is_known(step) for step in steps]
    return (
        tuple(step for step, here in zip(steps, known, strict=True) if not here),
        tuple(step for step, here in zip(steps, known, strict=True) if here),
    )


def _is_known(step: StepConfig) -> bool:
    if step.one_of is not None:
        return all(_is_known(inner) for inner in step.one_of.of)
    return step.model_fields_set <= _KNOWN


class BatchAugmenter:
    """Augments the images and labels of a batch together.

    Parameters
    ----------
    steps
        From `split_steps`; applied in order.
    """

    def __init__(self, steps: Sequence[StepConfig]) -> None:
        self._steps = tuple(steps)
        self._larger = OVERSIZE if _has_affine(self._steps) else 1.0

    def side_to_cut(self, side: int) -> int:
        """Return the side in pixels of the square to read for a patch of this side."""
        return round(side * self._larger)

    def __call__(
        self, images: torch.Tensor, *maps: torch.Tensor, side: int
    ) -> tuple[torch.Tensor, ...]:
        """Augment a batch; randomness comes from torch's global generators.

        Parameters
        ----------
        images
            ``(B, C, H, W)`` uint8, H = W = `side_to_cut` of ``side``.
        maps
            Maps of the same pixels, such as labels and weights: ``(B, H, W)`` or ``(B, K, H, W)``
            of any dtype; never interpolated.
        side
            Side of the returned patches, in pixels.

        Returns
        -------
        tuple of torch.Tensor
            Images ``(B, C, side, side)`` float32, 0 to 255 (unchanged if there are no steps), then
            the maps with ``side`` pixels a side and their own dtype.
        """
        if not self._steps:
            return images, *maps
        batch: Batch = (images.float() / 255, *maps)
        # Augment in full precision.
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            for step in self._steps:
                batch = _apply(batch, step, range(len(images)))
        start = (images.shape[-1] - side) // 2
        centre = (..., slice(start, start + side), slice(start, start + side))
        return batch[0][centre] * 255, *(one[centre] for one in batch[1:])


def _has_affine(steps: Iterable[StepConfig]) -> bool:
    return any(
        step.affine is not None or (step.one_of is not None and _has_affine(step.one_of.of))
        for step in steps
    )


def _apply(batch: Batch, step: StepConfig, among: Sequence[int]) -> Batch:
    """Apply a step to each of the patches ``among`` with its probability."""
    config = step.chosen
    assert config is not None
    chosen = [number for number in among if float(torch.rand(())) < config.p]
    if step.one_of is None or not chosen:
        return _change(batch, step, chosen)
    # In one_of, p is a relative weight.
    weights = torch.tensor([one.chosen.p if one.chosen else 0.0 for one in step.one_of.of])
    picked = torch.multinomial(weights, len(chosen), replacement=True).tolist()
    for place, one in enumerate(step.one_of.of):
        of_step = [number for number, pick in zip(chosen, picked, strict=True) if pick == place]
        batch = _change(batch, one, of_step)
    return batch


def _change(batch: Batch, step: StepConfig, chosen: Sequence[int]) -> Batch:
    """Apply a step to the chosen patches."""
    if not chosen:
        return batch
    index = torch.tensor(chosen).to(batch[0].device, non_blocking=True)
    part = tuple(one[index] for one in batch)
    (name,) = step.model_fields_set
    if name in _FLIPS:
        part = _flip(part, name)
    elif step.affine is not None:
        part = _affine(part, step.affine)
    elif step.dropout is not None:
        part = (_drop_boxes(part[0], step.dropout), *part[1:])
    else:
        part = (colours.change_colours(part[0], step), *part[1:])
    return tuple(one.index_copy(0, index, new) for one, new in zip(batch, part, strict=True))


def _flip(batch: Batch, name: str) -> Batch:
    """Flip and rotate by multiples of 90 degrees, each patch independently."""
    count = len(batch[0])
    across, down, over = torch.zeros((3, count), dtype=torch.bool)
    match name:
        case "hflip":
            across[:] = True
        case "vflip":
            down[:] = True
        case "rot90":
            quarters = torch.randint(1, 4, (count,))
            over = quarters % 2 == 1
            across, down = quarters >= 2, quarters <= 2
        case _:
            across, down, over = torch.randint(0, 2, (3, count)).bool()
    turns: tuple[tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]], ...] = (
        (over, lambda x: x.transpose(-1, -2)),
        (across, lambda x: x.flip(-1)),
        (down, lambda x: x.flip(-2)),
    )
    for chosen, turn in turns:
        batch = tuple(_where(chosen, turn(one), one) for one in batch)
    return batch


def _where(chosen: torch.Tensor, changed: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    shape = (-1, *[1] * (kept.ndim - 1))
    return torch.where(chosen.to(kept.device, non_blocking=True).reshape(shape), changed, kept)


def _affine(batch: Batch, config: AffineConfig) -> Batch:
    """Rotate, scale and shift, with reflection at the borders."""
    images, count = batch[0], len(batch[0])
    angle = colours.uniform(count, -config.rotate, config.rotate).deg2rad()
    scale = colours.uniform(count, *config.scale)
    other = scale if config.keep_ratio else colours.uniform(count, *config.scale)
    shifts = [2 * colours.uniform(count, -config.shift, config.shift) for _ in range(2)]
    cos, sin = angle.cos(), angle.sin()
    # Maps output to input positions, in grid_sample's coordinates from -1 to 1.
    rows = [
        torch.stack([cos / scale, -sin / scale, shifts[0]], 1),
        torch.stack([sin / other, cos / other, shifts[1]], 1),
    ]
    matrix = torch.stack(rows, 1).to(images.device, non_blocking=True)
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return _sample(images, grid, "bilinear"), *(_sample_nearest(one, grid) for one in batch[1:])


def _sample_nearest(one: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Resample a map by nearest neighbour, keeping its dtype."""
    flat = one if one.ndim == 4 else one[:, None]
    moved = _sample(flat.float(), grid, "nearest").to(one.dtype)
    return moved if one.ndim == 4 else moved[:, 0]


def _sample(x: torch.Tensor, grid: torch.Tensor, mode: str) -> torch.Tensor:
    return functional.grid_sample(x, grid, mode, padding_mode="reflection", align_corners=False)


def _drop_boxes(images: torch.Tensor, config: DropoutConfig) -> torch.Tensor:
    """Fill random boxes of the images with black."""
    count, side = len(images), images.shape[-1]
    number = torch.randint(1, config.holes + 1, (count,))
    ruler = torch.arange(side, device=images.device)
    for hole in range(int(number.max())):
        sides = colours.uniform(2 * count, *config.side).reshape(2, count) * side
        sides = torch.where(hole < number, sides, 0)
        starts = torch.rand(2, count) * (side - sides)
        edges = torch.stack([starts, starts + sides]).to(images.device, non_blocking=True)
        inside = (ruler >= edges[0, ..., None]) & (ruler < edges[1, ..., None])
        hidden = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        images = images.masked_fill(hidden, 0)
    return images
