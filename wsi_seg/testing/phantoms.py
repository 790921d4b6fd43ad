"""Owns synthetic X-rays and CT volumes with known findings, for tests and pipelines."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

_AIR, _LUNG, _BODY, _BONE, _VESSEL, _NODULE = -1000.0, -850.0, 40.0, 500.0, 30.0, 40.0

# Ground-glass nodules and thin vessels fill their voxels only partly.
_FAINT = -500.0


@dataclass(frozen=True, slots=True)
class Nodule:
    """Spherical nodule: centre x, y, z and diameter in mm."""

    x: float
    y: float
    z: float
    diameter: float


def phantom_ct(
    seed: int,
    *,
    shape: tuple[int, int, int] = (32, 160, 192),
    spacing: tuple[float, float, float] = (2.5, 1.2, 1.2),
    diameters: tuple[float, ...] = (5, 5, 6, 7, 9, 14),
) -> tuple[NDArray[np.int16], list[Nodule]]:
    """Generate a chest CT: two lungs with vessels, some of them short, and nodules, some faint.

    In a single slice, vessels look like nodules; the neighbouring slices distinguish most of them.

    Parameters
    ----------
    seed
        Seed of all random choices.
    shape, spacing
        Numbers of slices, rows and columns, and their spacing in mm.
    diameters
        Diameters of the nodules in mm.

    Returns
    -------
    volume : NDArray[np.int16]
        Hounsfield units, ``(z, y, x)``.
    nodules : list of Nodule
        Positions in mm from the centre of the first voxel.
    """
    rng = np.random.default_rng(seed)
    z, y, x = (np.arange(n) * step for n, step in zip(shape, spacing, strict=True))
    grid = np.broadcast_arrays(z[:, None, None], y[None, :, None], x[None, None, :])
    depth, tall, wide = (float(axis[-1]) for axis in (z, y, x))
    volume = np.full(shape, _AIR)
    body = _inside(grid, (None, tall / 2, wide / 2), (None, tall * 0.46, wide * 0.46))
    volume[body] = _BODY
    rim = body & ~_inside(grid, (None, tall / 2, wide / 2), (None, tall * 0.42, wide * 0.43))
    volume[rim & (np.sin(grid[0] / 6 + grid[2] / 15) > 0.6)] = _BONE
    lungs = []
    for side in (0.29, 0.71):
        lung = _inside(grid, (None, tall / 2, wide * side), (None, tall * 0.33, wide * 0.16))
        volume[lung] = _LUNG
        lungs.append((tall / 2, wide * side, tall * 0.33, wide * 0.16))
    for _ in range(40):
        cy, cx = _position(rng, lungs)
        slope_y, slope_x = rng.normal(0, 0.25, 2)
        radius, middle = rng.uniform(1.5, 3.5), rng.uniform(0, depth)
        off = np.hypot(
            grid[1] - cy - slope_y * (grid[0] - middle), grid[2] - cx - slope_x * (grid[0] - middle)
        )
        reach = np.abs(grid[0] - middle) < rng.uniform(8, 40)
        volume[(off < radius) & reach & (volume == _LUNG)] = rng.uniform(_FAINT, _VESSEL)
    nodules: list[Nodule] = []
    for diameter in diameters:
        cy, cx = _position(rng, lungs)
        cz = rng.uniform(0.15, 0.85) * depth
        nodules.append(Nodule(cx, cy, cz, diameter))
        away = (grid[0] - cz) ** 2 + (grid[1] - cy) ** 2 + (grid[2] - cx) ** 2
        volume[away <= (diameter / 2) ** 2] = rng.uniform(_FAINT, _NODULE)
    volume = gaussian_filter(volume, (0, 0.8, 0.8)) + rng.normal(0, 60, shape)
    return np.rint(volume).astype(np.int16), nodules


def _inside(
    grid: tuple[NDArray[np.float64], ...],
    centre: tuple[float | None, ...],
    radius: tuple[float | None, ...],
) -> NDArray[np.bool_]:
    total = np.zeros(grid[0].shape)
    for axis, middle, reach in zip(grid, centre, radius, strict=True):
        if middle is not None and reach is not None:
            total = total + ((axis - middle) / reach) ** 2
    inside: NDArray[np.bool_] = total <= 1
    return inside


def _position(
    rng: np.random.Generator, lungs: list[tuple[float, float, float, float]]
) -> tuple[float, float]:
    """Draw y and x well inside one of the lungs."""
    y, x, tall, wide = lungs[rng.integers(len(lungs))]
    angle, reach = rng.uniform(0, 2 * np.pi), 0.75 * np.sqrt(rng.random())
    return y + tall * reach * np.sin(angle), x + wide * reach * np.cos(angle)


def write_mhd(path: Path, volume: NDArray[np.int16], spacing: tuple[float, float, float]) -> None:
    """Write a volume as MetaImage: a header file, and a raw file next to it.

    Parameters
    ----------
    path
        Header file, ``.mhd``.
    volume
        ``(z, y, x)`` int16.
    spacing
        Voxel spacing along z, y, x in mm.
    """
    raw = path.with_suffix(".raw")
    raw.write_bytes(volume.astype("<i2").tobytes())
    deep, tall, wide = volume.shape
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        f"DimSize = {wide} {tall} {deep}",
        "ElementType = MET_SHORT",
        f"ElementSpacing = {spacing[2]} {spacing[1]} {spacing[0]}",
        "Offset = 0 0 0",
        "TransformMatrix = 1 0 0 0 1 0 0 0 1",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        f"ElementDataFile = {raw.name}",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def phantom_xray(finding: NDArray[np.bool_], seed: int) -> NDArray[np.uint8]:
    """Generate a chest X-ray in which the pixels of a finding are darker and without vessels.

    Parameters
    ----------
    finding
        Mask, ``(H, W)`` bool, may be empty.
    seed
        Seed of all random choices.

    Returns
    -------
    NDArray[np.uint8]
        Grey values, ``(H, W)``, 0 to 255.
    """
    rng = np.random.default_rng(seed)
    height, width = finding.shape
    y, x = np.mgrid[:height, :width] / max(height, width)
    image = np.full(finding.shape, 170.0) + rng.normal(0, 5)
    for side in (0.29, 0.71):
        off = ((x - side - rng.normal(0, 0.01)) / 0.17) ** 2 + ((y - 0.45) / 0.36) ** 2
        image -= 85 / (1 + np.exp(12 * (off - 1)))
    vessels = gaussian_filter(rng.normal(0, 1, finding.shape), height / 150)
    texture = 14 * vessels / max(1e-6, float(vessels.std()))
    ribs = 9 * np.sin(2 * np.pi * (y * 9 + 1.3 * (x - 0.5) ** 2))
    soft = gaussian_filter(finding.astype(np.float64), height / 200)
    image += (texture + ribs) * (1 - 0.8 * soft) - 28 * soft + rng.normal(0, 4, finding.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
