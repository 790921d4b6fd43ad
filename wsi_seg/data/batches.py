"""Owns augmentation of whole batches on the device of the network; labels stay exact.

Which patch is changed, and how much, is drawn on the CPU from torch's generator, so the device is
never waited for. Steps that have no version here are left to `wsi_seg.data.augment`.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch.nn import functional

from wsi_seg.config.augment import AffineConfig, Augment, DropoutConfig, StepConfig
from wsi_seg.data import colours
from wsi_seg.data.augment import LARGER
from wsi_seg.data.presets import PRESETS

# Steps that this module knows; the others run in the loader's processes.
_TURNS = {"hflip", "vflip", "rot90", "d4"}
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
_KNOWN = _TURNS | _COLOURS | {"affine", "dropout"}

# Images, then maps of the same pixels.
Batch = tuple[torch.Tensor, ...]


def split_steps(augment: Augment) -> tuple[tuple[StepConfig, ...], tuple[StepConfig, ...]]:
    """Split the steps of a recipe into those for the loader's processes and those for the device.

    The former come first, whatever their order in the recipe.
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
    """Changes the images and labels of a batch together.

    Parameters
    ----------
    steps
        From `split_steps`; each is applied in turn.
    """

    def __init__(self, steps: Sequence[StepConfig]) -> None:
        self._steps = tuple(steps)
        self._larger = LARGER if _reaches(self._steps) else 1.0

    def side_to_cut(self, side: int) -> int:
        """Side of the square to cut for a patch of this side, in pixels."""
        return round(side * self._larger)

    def __call__(
        self, images: torch.Tensor, *maps: torch.Tensor, side: int
    ) -> tuple[torch.Tensor, ...]:
        """Augment a batch; torch's generators decide.

        Parameters
        ----------
        images
            ``(B, C, H, W)`` uint8, H = W = `side_to_cut` of ``side``.
        maps
            What belongs to their pixels, such as labels: ``(B, H, W)`` or ``(B, K, H, W)``; values
            are never blended.
        side
            Side of the patches that are wanted.

        Returns
        -------
        tuple of torch.Tensor
            Images ``(B, C, side, side)`` float32, 0 to 255 (as they came where there are no
            steps), then the maps as they came, ``side`` pixels a side.
        """
        if not self._steps:
            return images, *maps
        batch: Batch = (images.float() / 255, *maps)
        # Half precision is for the network.
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            for step in self._steps:
                batch = _apply(batch, step, range(len(images)))
        start = (images.shape[-1] - side) // 2
        centre = (..., slice(start, start + side), slice(start, start + side))
        return batch[0][centre] * 255, *(one[centre] for one in batch[1:])


def _reaches(steps: Iterable[StepConfig]) -> bool:
    return any(
        step.affine is not None or (step.one_of is not None and _reaches(step.one_of.of))
        for step in steps
    )


def _apply(batch: Batch, step: StepConfig, among: Sequence[int]) -> Batch:
    """Apply a step to each of some patches with its probability."""
    config = step.chosen
    assert config is not None
    chosen = [number for number in among if float(torch.rand(())) < config.p]
    if step.one_of is None or not chosen:
        return _change(batch, step, chosen)
    # Their own ``p`` are weights among each other.
    weights = torch.tensor([one.chosen.p if one.chosen else 0.0 for one in step.one_of.of])
    picked = torch.multinomial(weights, len(chosen), replacement=True).tolist()
    for place, one in enumerate(step.one_of.of):
        of_step = [number for number, pick in zip(chosen, picked, strict=True) if pick == place]
        batch = _change(batch, one, of_step)
    return batch


def _change(batch: Batch, step: StepConfig, chosen: Sequence[int]) -> Batch:
    """Change some patches for certain."""
    if not chosen:
        return batch
    index = torch.tensor(chosen).to(batch[0].device, non_blocking=True)
    part = tuple(one[index] for one in batch)
    (name,) = step.model_fields_set
    if name in _TURNS:
        part = _turned(part, name)
    elif step.affine is not None:
        part = _moved(part, step.affine)
    elif step.dropout is not None:
        part = (_without_holes(part[0], step.dropout), *part[1:])
    else:
        part = (colours.changed(part[0], step), *part[1:])
    return tuple(one.index_copy(0, index, new) for one, new in zip(batch, part, strict=True))


def _turned(batch: Batch, name: str) -> Batch:
    """Flip and turn by quarters: each patch by its own, exactly."""
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


def _moved(batch: Batch, config: AffineConfig) -> Batch:
    """Turn, scale and shift; what comes in from outside is mirrored."""
    images, count = batch[0], len(batch[0])
    angle = colours.between(count, -config.rotate, config.rotate).deg2rad()
    scale = colours.between(count, *config.scale)
    other = scale if config.keep_ratio else colours.between(count, *config.scale)
    shifts = [2 * colours.between(count, -config.shift, config.shift) for _ in range(2)]
    cos, sin = angle.cos(), angle.sin()
    # From positions in the result to positions in the image, which grid_sample counts from -1 to 1.
    rows = [
        torch.stack([cos / scale, -sin / scale, shifts[0]], 1),
        torch.stack([sin / other, cos / other, shifts[1]], 1),
    ]
    matrix = torch.stack(rows, 1).to(images.device, non_blocking=True)
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return _sampled(images, grid, "bilinear"), *(_nearest(one, grid) for one in batch[1:])


def _nearest(one: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Map whose values are taken as they are, from the nearest pixel."""
    flat = one if one.ndim == 4 else one[:, None]
    moved = _sampled(flat.float(), grid, "nearest").to(one.dtype)
    return moved if one.ndim == 4 else moved[:, 0]


def _sampled(x: torch.Tensor, grid: torch.Tensor, mode: str) -> torch.Tensor:
    return functional.grid_sample(x, grid, mode, padding_mode="reflection", align_corners=False)


def _without_holes(images: torch.Tensor, config: DropoutConfig) -> torch.Tensor:
    """Fill boxes with black; the label keeps what is behind them."""
    count, side = len(images), images.shape[-1]
    number = torch.randint(1, config.holes + 1, (count,))
    ruler = torch.arange(side, device=images.device)
    for hole in range(int(number.max())):
        sides = colours.between(2 * count, *config.side).reshape(2, count) * side
        sides = torch.where(hole < number, sides, 0)
        starts = torch.rand(2, count) * (side - sides)
        edges = torch.stack([starts, starts + sides]).to(images.device, non_blocking=True)
        inside = (ruler >= edges[0, ..., None]) & (ruler < edges[1, ..., None])
        hidden = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        images = images.masked_fill(hidden, 0)
    return images
