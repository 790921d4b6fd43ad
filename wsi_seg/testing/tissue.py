"""Owns synthetic slides: stained tissue with glands, painted tile by tile, with ground truth.

Colours follow the Beer-Lambert law, as in Ruifrok and Johnston (2001): the transmitted light is
``exp(-(h H + e E))`` per channel, for haematoxylin ``h`` and eosin ``e``.
"""

import json
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from wsi_seg.classes import ClassTable
from wsi_seg.errors import OutputError
from wsi_seg.progress import Progress, Silent
from wsi_seg.testing.structures import Kind, Stain, Structure, paint, scatter, scatter_dust, shade
from wsi_seg.testing.textures import (
    REGION_PX,
    Field,
    Plane,
    Texture,
    fibres,
    node_shape,
    nuclei,
    smooth_noise,
    tubules,
)

CLASSES = ClassTable.named(["gland"])

_TILE = REGION_PX
_SPACING = 32  # pixels between the nodes of fields
_STEP = 4  # downsample between levels
_SMALLEST_LEVEL_PX = 1024

_HAEMATOXYLIN = np.array([0.93, 1.16, 0.50], dtype=np.float32)
_EOSIN = np.array([0.11, 0.60, 0.31], dtype=np.float32)
_GLASS = np.array([243, 242, 244], dtype=np.float32)

# Radius of each kind in um, and area of slide in um2 per attempt to place one.
_RADII_UM: dict[Kind, tuple[float, float]] = {
    "gland": (32.0, 66.0),
    "vessel": (18.0, 75.0),
    "knot": (25.0, 60.0),
}
_AREA_UM2: dict[Kind, float] = {"gland": 22_000.0, "vessel": 200_000.0, "knot": 300_000.0}


@dataclass(frozen=True, slots=True, eq=False)
class TissueScene:
    """All parameters of one synthetic slide."""

    height: int
    width: int
    structures: tuple[Structure, ...]
    dust: tuple[Structure, ...]
    depth: Field
    zone: Field
    tint: Field
    fold: Field
    edge: Texture
    strands: tuple[Texture, Texture]
    blobs: Texture
    tubule: Texture
    lumen: Texture
    grain: tuple[Texture, Texture]
    cells: Texture
    cell_rank: Texture

    def tile(self, y: int, x: int) -> NDArray[np.uint8]:
        """Paint the tile whose first pixel is ``(y, x)``, ``(512, 512, 3)`` uint8 RGB."""
        region = (y, x, min(_TILE, self.height - y), min(_TILE, self.width - x))
        speckle = self.grain[0].at(*region) + self.grain[1].at(*region)
        light = _GLASS + (2.5 * self.tint.at(*region) + 1.1 * speckle)[..., None]
        depth = self.depth.at(*region) + 26 * self.edge.at(*region)
        if depth.max() > -8:
            stain = self._stain(region, speckle)
            inside = (depth / 5 + 0.5).clip(0, 1)
            density = stain.haematoxylin[..., None] * _HAEMATOXYLIN
            density += stain.eosin[..., None] * _EOSIN
            light *= np.exp(-inside[..., None] * density)
        for speck in self.dust:
            if speck.touches(*region):
                shade(speck, light, y, x)
        tile = np.full((_TILE, _TILE, 3), _GLASS, dtype=np.float32)
        tile[: region[2], : region[3]] = light
        return tile.clip(0, 255).astype(np.uint8)

    def _stain(self, region: tuple[int, int, int, int], speckle: Plane) -> Stain:
        tint, blobs = self.tint.at(*region), self.blobs.at(*region)
        zone = (self.zone.at(*region) * 3 + 0.4 + 0.8 * self.edge.at(*region)).clip(0, 1)
        direction = (0.5 + 2 * tint).clip(0, 1)
        rough, other = self.strands[0].at(*region), self.strands[1].at(*region)
        rough = rough + direction * (other - rough)
        stroma = 0.54 + 0.22 * rough + 0.06 * blobs
        stroma *= 1 - 0.8 * ((rough - 0.86) * 20).clip(0, 1)  # shrinkage clefts
        stain = Stain(
            eosin=stroma + zone * (0.95 * self.tubule.at(*region) - stroma),
            haematoxylin=np.full(zone.shape, 0.05, dtype=np.float32),
            crowd=(0.16 + 0.14 * zone + 0.05 * tint) * (1 - zone * self.lumen.at(*region)),
            texture=rough,
            blobs=blobs,
        )
        for structure in self.structures:
            if structure.touches(*region):
                paint(structure, stain, region[0], region[1])
        shown = self.cells.at(*region) * (self.cell_rank.at(*region) < stain.crowd)
        thick = 1 + 0.09 * tint + 0.9 * self.fold.at(*region).clip(0, 1)
        np.multiply(stain.eosin, 1 - 0.5 * shown, out=stain.eosin)
        np.add(stain.eosin, 0.035 * speckle, out=stain.eosin)
        np.multiply(stain.eosin.clip(0, None), thick, out=stain.eosin)
        np.add(stain.haematoxylin, shown, out=stain.haematoxylin)
        np.multiply(stain.haematoxylin.clip(0, None), thick, out=stain.haematoxylin)
        return stain


def make_scene(*, height: int, width: int, seed: int, mpp: float = 0.5) -> TissueScene:
    """Generate a scene; the same arguments give the same pixels."""
    rng = np.random.default_rng(seed)
    shape = node_shape(height, width, _SPACING)
    depth = Field(_lobes(rng, shape), _SPACING)
    extent = (height, width)
    structures = scatter(
        rng,
        depth,
        extent=extent,
        radii={kind: (low / mpp, high / mpp) for kind, (low, high) in _RADII_UM.items()},
        area_px={kind: area / mpp**2 for kind, area in _AREA_UM2.items()},
    )
    fold = 1 - np.abs(smooth_noise(rng, shape, 22, mode="reflect")) * 18
    fold *= smooth_noise(rng, shape, 20, mode="reflect") > 0.9
    period = 1024
    tubule, lumen = tubules(rng, period, cell=78)
    cells, cell_rank = nuclei(rng, period, count=6000)
    grain = [Texture.of(smooth_noise(rng, (p, p), 0.7)) for p in (period, 1000)]
    return TissueScene(
        height=height,
        width=width,
        structures=structures,
        dust=scatter_dust(rng, extent),
        depth=depth,
        zone=Field(smooth_noise(rng, shape, 14, mode="reflect"), _SPACING),
        tint=Field(smooth_noise(rng, shape, 9, mode="reflect"), _SPACING),
        fold=Field(fold, _SPACING),
        edge=Texture.of(smooth_noise(rng, (period, period), 22)),
        strands=(
            Texture.of(fibres(rng, 1024, waves=(56, 17), bend=5)),
            Texture.of(fibres(rng, 960, waves=(-20, 44), bend=6)),
        ),
        blobs=Texture.of(smooth_noise(rng, (992, 992), 4.5).clip(-2, 2)),
        tubule=Texture.of(tubule),
        lumen=Texture.of(lumen),
        grain=(grain[0], grain[1]),
        cells=Texture.of(cells),
        cell_rank=Texture.of(cell_rank),
    )


def _lobes(rng: np.random.Generator, shape: tuple[int, int]) -> Plane:
    """Return the signed distance of nodes from the edge of tissue, in pixels, positive inside."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    y, x = y / shape[0], x / shape[1]
    inside = np.full(shape, -np.inf, dtype=np.float32)
    for centre_y, centre_x in ((0.34, 0.27), (0.62, 0.68), (0.28, 0.78)):
        dy = y - centre_y + rng.uniform(-0.06, 0.06)
        dx = x - centre_x + rng.uniform(-0.06, 0.06)
        tilt = rng.uniform(-0.7, 0.7)
        along, across = dx + tilt * dy, dy - tilt * dx
        size = rng.uniform(0.24, 0.33)
        inside = np.maximum(inside, 1 - np.hypot(along, across * 1.15) / size)
    coarse = max(shape) / 16
    inside += 0.20 * smooth_noise(rng, shape, coarse, mode="reflect")
    inside += 0.07 * smooth_noise(rng, shape, coarse / 4, mode="reflect")
    tissue = inside > 0
    away = distance_transform_edt(tissue) - distance_transform_edt(~tissue)
    distance: Plane = (away * _SPACING).astype(np.float32)
    return distance


def write_tissue_slide(
    path: Path,
    *,
    height: int,
    width: int,
    seed: int,
    mpp: float = 0.5,
    progress: Progress | None = None,
) -> Path:
    """Write a synthetic stained slide, and its ground truth next to it.

    The slide is a pyramidal BigTIFF with JPEG tiles of 512 px and a downsample of 4 per level. It
    is painted tile by tile, so memory does not grow with its height.

    Parameters
    ----------
    path
        Slide to write; it gets this name only when it is complete.
    height, width
        Size in level-0 pixels.
    seed
        Seed of all random choices.
    mpp
        Micrometres per pixel.
    progress
        Reports progress in megapixels.

    Returns
    -------
    Path
        GeoJSON file with the outlines of all glands in level-0 pixels, in QuPath's format.

    Raises
    ------
    OutputError
        If the files cannot be written.
    """
    truth = path.with_suffix(".geojson")
    try:
        # The slide is renamed last, so that its existence implies that of both files.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".scratch-") as scratch:
            scene = make_scene(height=height, width=width, seed=seed, mpp=mpp)
            temporary = Path(scratch) / path.name
            _write_pyramid(temporary, scene, mpp, progress or Silent())
            truth.write_text(json.dumps(_truth(scene, seed)), encoding="utf-8")
            temporary.replace(path)
    except OSError as error:
        raise OutputError.of(path, error, step="write slide") from error
    return truth


def _write_pyramid(path: Path, scene: TissueScene, mpp: float, progress: Progress) -> None:
    extents = [(scene.height, scene.width)]
    while max(extents[-1]) > _SMALLEST_LEVEL_PX:
        extents.append((-(-extents[-1][0] // _STEP), -(-extents[-1][1] // _STEP)))
    # Coarser levels are kept in files, not in memory, until they are written.
    levels = [
        np.memmap(path.with_suffix(f".{i}"), dtype=np.uint8, mode="w+", shape=(*extent, 3))
        for i, extent in enumerate(extents[1:], start=1)
    ]
    # Not in the generator of tiles: tifffile takes the last tile and never asks for the end.
    progress.start("Paint slide", scene.height * scene.width / 1e6, "Mpx")
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for index, extent in enumerate(extents):
            coarser = levels[index] if index < len(levels) else None
            if index == 0:
                tiles = _paint_tiles(scene, coarser, progress)
            else:
                tiles = _split_tiles(levels[index - 1], coarser)
            tiff.write(
                tiles,
                shape=(*extent, 3),
                dtype=np.uint8,
                photometric="rgb",
                tile=(_TILE, _TILE),
                compression="jpeg",
                compressionargs={"level": 85},
                subfiletype=1 if index else 0,
                resolution=(1e4 / (mpp * _STEP**index),) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
                software="wsi_seg synthetic tissue" if index == 0 else None,
            )
    progress.finish()


def _paint_tiles(
    scene: TissueScene, coarser: NDArray[np.uint8] | None, progress: Progress
) -> Iterator[NDArray[np.uint8]]:
    """Paint the tiles of level 0 row by row, and write their means to the next level."""
    for y in range(0, scene.height, _TILE):
        for x in range(0, scene.width, _TILE):
            tile = scene.tile(y, x)
            _shrink_into(coarser, tile, y, x)
            progress.advance(min(_TILE, scene.height - y) * min(_TILE, scene.width - x) / 1e6)
            yield tile


def _split_tiles(
    level: NDArray[np.uint8], coarser: NDArray[np.uint8] | None
) -> Iterator[NDArray[np.uint8]]:
    """Split a level into tiles row by row, and write their means to the next level."""
    for y in range(0, level.shape[0], _TILE):
        for x in range(0, level.shape[1], _TILE):
            part = level[y : y + _TILE, x : x + _TILE]
            pad = [(0, _TILE - part.shape[0]), (0, _TILE - part.shape[1]), (0, 0)]
            tile = np.pad(part, pad, mode="edge")
            _shrink_into(coarser, tile, y, x)
            yield tile


def _shrink_into(
    coarser: NDArray[np.uint8] | None, tile: NDArray[np.uint8], y: int, x: int
) -> None:
    if coarser is None:
        return
    side = _TILE // _STEP
    blocks = tile.reshape(side, _STEP, side, _STEP, 3)
    mean = blocks.mean(axis=(1, 3), dtype=np.float32).round().astype(np.uint8)
    target = coarser[y // _STEP : y // _STEP + side, x // _STEP : x // _STEP + side]
    target[:] = mean[: target.shape[0], : target.shape[1]]


def _truth(scene: TissueScene, seed: int) -> dict[str, object]:
    """Return the outlines of the glands in QuPath's GeoJSON format."""
    gland = CLASSES.entries[0]
    features = []
    for number, structure in enumerate(s for s in scene.structures if s.kind == "gland"):
        ring = structure.outline().round(2).tolist()
        features.append(
            {
                "type": "Feature",
                "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{seed}/{number}")),
                "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
                "properties": {
                    "objectType": "annotation",
                    "classification": {"name": gland.name, "color": list(gland.rgb)},
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}
