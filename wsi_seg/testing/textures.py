"""Owns the patterns of synthetic tissue: periodic textures and smooth low-resolution fields.

Both are generated once and looked up by position, so a slide of any size can be painted tile by
tile, in any order, with the same result.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

Plane = NDArray[np.float32]

# Maximum side of a region that is looked up at once, in pixels.
REGION_PX = 512


@dataclass(frozen=True, slots=True, eq=False)
class Texture:
    """Square pattern that tiles seamlessly.

    Parameters
    ----------
    plane
        ``(period + REGION_PX, period + REGION_PX)`` float32: wrapped, so that a region is a view.
    period
        Period of the pattern in pixels.
    """

    plane: Plane
    period: int

    @classmethod
    def of(cls, pattern: Plane) -> "Texture":
        """Return a texture that repeats a square array."""
        return cls(np.pad(pattern, (0, REGION_PX), mode="wrap"), pattern.shape[0])

    def at(self, y: int, x: int, height: int, width: int) -> Plane:
        """Return the texture in a region of the slide, ``(height, width)``, as a read-only view."""
        top, first = y % self.period, x % self.period
        return self.plane[top : top + height, first : first + width]


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """Smooth values over a whole slide, linear between nodes every ``spacing`` pixels."""

    nodes: Plane
    spacing: int

    def at(self, y: int, x: int, height: int, width: int) -> Plane:
        """Return the interpolated values in a region, ``(height, width)`` float32."""
        rows, row_weights = _interpolation(y, height, self.spacing)
        columns, column_weights = _interpolation(x, width, self.spacing)
        values = row_weights @ self.nodes[rows, columns] @ column_weights.T
        return values.astype(np.float32, copy=False)


def node_shape(height: int, width: int, spacing: int) -> tuple[int, int]:
    """Return the shape of the nodes of a field over this many pixels."""
    return (height - 1) // spacing + 2, (width - 1) // spacing + 2


def _interpolation(start: int, length: int, spacing: int) -> tuple[slice, Plane]:
    """Return the nodes around some pixels, and their weights, ``(length, nodes)``."""
    position = np.arange(start, start + length) / spacing
    first = int(position[0])
    before = position.astype(np.intp)
    share = (position - before).astype(np.float32)
    weights = np.zeros((length, int(before[-1]) - first + 2), dtype=np.float32)
    index = np.arange(length)
    weights[index, before - first] = 1 - share
    weights[index, before - first + 1] = share
    return slice(first, first + weights.shape[1]), weights


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], sigma: float, *, mode: str = "wrap"
) -> Plane:
    """Return noise of mean 0 and standard deviation 1, smoothed with a Gaussian of ``sigma``."""
    noise = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode=mode)
    noise -= noise.mean()
    scaled: Plane = noise / max(float(noise.std()), 1e-6)
    return scaled


def fibres(rng: np.random.Generator, period: int, *, waves: tuple[int, int], bend: float) -> Plane:
    """Return wavy strands, -1 to 1: plane waves (cycles per period in y, x), warped by noise."""
    y, x = np.mgrid[0:period, 0:period].astype(np.float32) / period
    shape = (period, period)
    warp = bend * smooth_noise(rng, shape, period / 18) + 0.8 * smooth_noise(rng, shape, 7)
    strands: Plane = np.sin(2 * np.pi * (waves[0] * y + waves[1] * x) + warp)
    patches = 0.6 + 0.4 * smooth_noise(rng, shape, period / 40).clip(-1.5, 1.5)
    return (strands * patches).clip(-1, 1).astype(np.float32)


def tubules(rng: np.random.Generator, period: int, *, cell: int) -> tuple[Plane, Plane]:
    """Return densely packed tubules in cross-section.

    Returns
    -------
    eosin
        About 1 in cytoplasm, 0.3 between tubules, 0.1 in lumina.
    lumen
        1 inside a lumen, 0 elsewhere.
    """
    count = (period // cell) ** 2
    step = period / (period // cell)
    base = np.argwhere(np.ones((period // cell,) * 2))
    centres = (base + 0.5 + rng.uniform(-0.36, 0.36, base.shape)) * step % period
    shape = (period, period)
    position = np.moveaxis(np.mgrid[0:period, 0:period], 0, -1).astype(np.float32)
    bent = position + 5.0 * np.stack(
        [smooth_noise(rng, shape, 12), smooth_noise(rng, shape, 12)], axis=-1
    )
    distance, nearest = cKDTree(centres, boxsize=period).query(bent % period, k=2)
    wall = (distance[..., 1] - distance[..., 0]).astype(np.float32)
    radius = (rng.uniform(0.02, 0.30, count) * cell).astype(np.float32)[nearest[..., 0]]
    lumen = ((radius - distance[..., 0]) / 2 + 0.5).clip(0, 1).astype(np.float32)
    inside = (wall / 5 - 0.4).clip(0, 1)
    tone = rng.uniform(0.78, 1.12, count).astype(np.float32)[nearest[..., 0]]
    eosin = (0.3 + inside * (tone - 0.3)) * (1 - lumen) + 0.08 * lumen
    return eosin.astype(np.float32), lumen


def nuclei(rng: np.random.Generator, period: int, *, count: int) -> tuple[Plane, Plane]:
    """Return cell nuclei at random positions, from ``count`` attempts to place one.

    Returns
    -------
    alpha
        Staining, 0 outside and up to 1 inside, mottled like chromatin.
    rank
        One random number per nucleus, 0 to 1: a threshold on it thins out whole nuclei.
    """
    alpha = np.zeros((period, period), dtype=np.float32)
    rank = np.ones((period, period), dtype=np.float32)
    reach = 13
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    for y, x, angle, stretch, size, own in zip(
        *rng.integers(0, period, (2, count)),
        rng.uniform(0, np.pi, count),
        rng.uniform(1.0, 1.9, count),
        rng.uniform(4.2, 6.4, count),
        rng.uniform(0, 1, count),
        strict=True,
    ):
        along = (dy * np.sin(angle) + dx * np.cos(angle)) / stretch**0.5
        across = (dy * np.cos(angle) - dx * np.sin(angle)) * stretch**0.5
        disc = ((size - np.hypot(along, across)) / 1.6 + 0.5).clip(0, 1)
        rows = np.arange(y - reach, y + reach + 1) % period
        columns = np.arange(x - reach, x + reach + 1) % period
        index = np.ix_(rows, columns)
        if np.any(disc * alpha[index]):
            continue  # nuclei do not overlap
        alpha[index] += disc
        rank[index] = np.where(disc > 0, own, rank[index])
    mottled = alpha * (0.82 + 0.14 * smooth_noise(rng, alpha.shape, 1.6))
    return mottled.clip(0, 1).astype(np.float32), rank
