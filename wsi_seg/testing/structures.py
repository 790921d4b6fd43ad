"""Owns the objects in synthetic tissue: positions and painting of glands, vessels and others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsi_seg.testing.textures import Field, Plane

_OUTLINE_POINTS = 96

Kind = Literal["gland", "vessel", "knot", "dust"]


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """One roughly round object.

    Parameters
    ----------
    kind
        ``gland`` (capsule, pale gap, lobed tuft) is the class to segment. ``vessel`` (thick wall,
        empty or bloody) and ``knot`` (a cluster of nuclei without a capsule) are distractors, and
        ``dust`` is on the glass.
    y, x
        Centre in level-0 pixels.
    radius
        Mean radius in level-0 pixels.
    waves
        Harmonics of the outline, ``(n, 3)`` float32: order, amplitude and phase.
    tone
        Random number, 0 to 1, that varies the appearance.
    """

    kind: Kind
    y: float
    x: float
    radius: float
    waves: NDArray[np.float32]
    tone: float

    @property
    def reach(self) -> float:
        """Distance from the centre beyond which nothing is painted, in pixels."""
        return self.radius * 1.12 * (1 + float(np.abs(self.waves[:, 1]).sum()))

    def outline(self) -> NDArray[np.float64]:
        """Return the vertices (x, y) of the outline in level-0 pixels, ``(n, 2)``, not closed."""
        angle = np.linspace(0, 2 * np.pi, _OUTLINE_POINTS, endpoint=False)
        radius = self.radius * self._bulge(angle.astype(np.float32))
        return np.stack([self.x + radius * np.cos(angle), self.y + radius * np.sin(angle)], axis=1)

    def touches(self, y: int, x: int, height: int, width: int) -> bool:
        """Return whether any part of it may be in a region."""
        return (
            y - self.reach < self.y < y + height + self.reach
            and x - self.reach < self.x < x + width + self.reach
        )

    def polar(self, ys: NDArray[np.intp], xs: NDArray[np.intp]) -> tuple[Plane, Plane]:
        """Return the distance of pixels from the centre, relative to the outline, and the angle."""
        dy = (ys - self.y + 0.5).astype(np.float32)[:, None]
        dx = (xs - self.x + 0.5).astype(np.float32)[None, :]
        angle: Plane = np.arctan2(dy, dx)
        rho: Plane = np.hypot(dy, dx) / (self.radius * self._bulge(angle))
        return rho, angle

    def _bulge(self, angle: Plane) -> Plane:
        bulge = np.ones_like(angle)
        for order, amplitude, phase in self.waves:
            bulge += amplitude * np.cos(order * angle + phase)
        return bulge


@dataclass(frozen=True, slots=True, eq=False)
class Stain:
    """Stain densities of a region, painted in place, and two patterns to paint with.

    Parameters
    ----------
    eosin, haematoxylin
        Density of each stain, ``(H, W)``.
    crowd
        Share of the possible nuclei that are shown, ``(H, W)``, 0 to 1.
    texture, blobs
        Strands, and round patches of a few pixels, ``(H, W)``, both about -1 to 1.
    """

    eosin: Plane
    haematoxylin: Plane
    crowd: Plane
    texture: Plane
    blobs: Plane

    def part(self, rows: slice, columns: slice) -> "Stain":
        """Return a view of some rows and columns."""
        index = (rows, columns)
        return Stain(
            self.eosin[index],
            self.haematoxylin[index],
            self.crowd[index],
            self.texture[index],
            self.blobs[index],
        )


def paint(structure: Structure, stain: Stain, y: int, x: int) -> None:
    """Paint a structure into the stains of a region whose first pixel is ``(y, x)``."""
    height, width = stain.eosin.shape
    reach = structure.reach
    rows = slice(
        max(0, int(structure.y - reach) - y), min(height, int(structure.y + reach) + 2 - y)
    )
    columns = slice(
        max(0, int(structure.x - reach) - x), min(width, int(structure.x + reach) + 2 - x)
    )
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    rho, angle = structure.polar(
        np.arange(rows.start, rows.stop) + y, np.arange(columns.start, columns.stop) + x
    )
    _PAINTERS[structure.kind](structure, stain.part(rows, columns), rho, angle)


def _edge(
    structure: Structure, rho: Plane, at: float | NDArray[np.floating], soft_px: float = 2.0
) -> Plane:
    """Return 1 where ``rho < at`` and 0 outside, with a ramp of a few pixels."""
    ramp: Plane = ((at - rho) * (structure.radius / soft_px) + 0.5).clip(0, 1)
    return ramp


def _mix(target: Plane, value: float | NDArray[np.floating], alpha: Plane) -> None:
    target += alpha * (value - target)


def _paint_gland(structure: Structure, stain: Stain, rho: Plane, angle: Plane) -> None:
    lobes = 3 + int(structure.tone * 4)
    phase = 40 * structure.tone
    gap = 0.84 - 0.10 * structure.tone + 0.05 * np.sin(2 * angle + phase)
    tuft = _edge(structure, rho, gap + 0.04 * np.sin(lobes * angle) + 0.05 * stain.blobs, 3.0)
    body = _edge(structure, rho, 1.0)
    capsule = body - _edge(structure, rho, 0.965)
    _mix(stain.eosin, 0.10, body)
    _mix(stain.eosin, 0.58 + 0.30 * stain.blobs, tuft)  # loops of capillaries
    _mix(stain.eosin, 1.05, capsule)
    _mix(stain.haematoxylin, 0.14 + 0.05 * stain.blobs, tuft)
    _mix(stain.crowd, 0.0, body)
    _mix(stain.crowd, 0.80, tuft)
    # Flat nuclei along the capsule.
    flat = ((np.sin(angle * (7 + lobes) + 3 * phase + 2 * stain.texture) - 0.75) * 5).clip(0, 1)
    stain.haematoxylin[...] += 0.75 * flat * (body - _edge(structure, rho, 0.95))


def _paint_vessel(structure: Structure, stain: Stain, rho: Plane, angle: Plane) -> None:
    thickness = 0.62 + 0.2 * structure.tone
    lumen = _edge(structure, rho, thickness + 0.03 * np.sin(12 * angle))
    wall = _edge(structure, rho, 1.0, 6.0)
    rings = np.sin(34 * rho + 2 * stain.texture)
    _mix(stain.eosin, 0.92 + 0.16 * rings, wall)
    _mix(stain.crowd, 0.25, wall)
    bloody = structure.tone > 0.55
    _mix(stain.eosin, 1.15 + 0.5 * stain.blobs if bloody else 0.02, lumen)
    _mix(stain.haematoxylin, 0.0, lumen)
    _mix(stain.crowd, 0.0, lumen)


def _paint_knot(structure: Structure, stain: Stain, rho: Plane, _: Plane) -> None:
    core = _edge(structure, rho, 0.8 + 0.15 * stain.texture, structure.radius / 2)
    _mix(stain.crowd, 1.1, core)
    _mix(stain.eosin, 0.5 + 0.1 * stain.blobs, core)


_PAINTERS = {"gland": _paint_gland, "vessel": _paint_vessel, "knot": _paint_knot}


def scatter(
    rng: np.random.Generator,
    depth: Field,
    *,
    extent: tuple[int, int],
    radii: dict[Kind, tuple[float, float]],
    area_px: dict[Kind, float],
) -> tuple[Structure, ...]:
    """Place structures at random inside tissue, without touching each other.

    Parameters
    ----------
    depth
        Signed distance of each pixel from the edge of the tissue, in pixels, positive inside.
    extent
        Height and width of the slide in pixels.
    radii
        Minimum and maximum radius per kind, in pixels.
    area_px
        Area of slide in pixels per attempt to place one, by kind.
    """
    placed: list[Structure] = []
    for kind, (least, greatest) in radii.items():
        for _ in range(int(extent[0] * extent[1] / area_px[kind])):
            candidate = _candidate(rng, kind, extent, rng.uniform(least, greatest))
            if _fits(candidate, placed, depth, extent):
                placed.append(candidate)
    return tuple(placed)


def scatter_dust(rng: np.random.Generator, extent: tuple[int, int]) -> tuple[Structure, ...]:
    """Place a few specks of dust anywhere on the slide."""
    count = 2 + extent[0] * extent[1] // 2_500_000
    return tuple(_candidate(rng, "dust", extent, rng.uniform(3, 13)) for _ in range(count))


def shade(speck: Structure, light: NDArray[np.float32], y: int, x: int) -> None:
    """Darken ``light``, ``(H, W, 3)`` with first pixel ``(y, x)``, under a speck, in place."""
    rho, _ = speck.polar(np.arange(light.shape[0]) + y, np.arange(light.shape[1]) + x)
    light *= 1 - (0.25 + 0.5 * speck.tone) * _edge(speck, rho, 0.8, speck.radius * 0.8)[..., None]


def _candidate(
    rng: np.random.Generator, kind: Kind, extent: tuple[int, int], radius: float
) -> Structure:
    orders = np.arange(2, 7)
    amplitude = rng.uniform(-1, 1, orders.size) * (0.13, 0.05, 0.03, 0.02, 0.015)
    phase = rng.uniform(0, 2 * np.pi, orders.size)
    return Structure(
        kind,
        y=float(rng.uniform(0, extent[0])),
        x=float(rng.uniform(0, extent[1])),
        radius=float(radius),
        waves=np.stack([orders, amplitude, phase], axis=1).astype(np.float32),
        tone=float(rng.uniform()),
    )


def _fits(
    new: Structure, placed: Sequence[Structure], depth: Field, extent: tuple[int, int]
) -> bool:
    if not (
        new.reach < new.y < extent[0] - new.reach and new.reach < new.x < extent[1] - new.reach
    ):
        return False
    if depth.at(int(new.y), int(new.x), 1, 1)[0, 0] < new.reach * 1.2:
        return False
    return all(np.hypot(new.y - old.y, new.x - old.x) > new.reach + old.reach + 6 for old in placed)
