"""Owns which chunks of a slide are tiled where a part of it is wanted; all others stay missing."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import ConfigError
from wsi_seg.geometry import Extent
from wsi_seg.ingest.plan import LevelPlan
from wsi_seg.masks.inside import Inside
from wsi_seg.masks.labels import TISSUE_PX, write_mask, write_tissue
from wsi_seg.reading.thumbnail import thumbnail_extent
from wsi_seg.store import SlideStore


def require_drawable(inside: Inside | None) -> None:
    """Refuse a class: slides that are not tiled have no annotations.

    Raises
    ------
    ConfigError
        If the part is that of a class.
    """
    if inside is not None and inside.class_name is not None:
        raise ConfigError(
            f"got class {inside.class_name!r} of slides that are not tiled yet, so have no "
            "annotations; expected a GeoJSON file of polygons, or --bbox"
        )


def wanted_chunks(
    inside: Inside | None, full: Extent, level: Extent, chunk: Extent
) -> NDArray[np.bool_] | None:
    """Which chunks of a level touch a part, ``(rows, columns)`` of the grid; None for all.

    Parameters
    ----------
    inside
        The part; None is all of the slide.
    full, level
        Size of level 0, and of the level.
    chunk
        Size of a chunk.
    """
    return None if inside is None else _touched(inside, full, level, chunk)


def only_part(plan: LevelPlan, inside: Inside | None, full: Extent) -> LevelPlan:
    """Plan of a level of which only the streams of wanted chunks are copied."""
    if plan.streams is None or inside is None:
        return plan
    wanted = _touched(inside, full, plan.layout.extent, plan.streams.tile)
    sizes = np.where(wanted.ravel(), plan.streams.sizes, 0)
    return replace(plan, streams=replace(plan.streams, sizes=sizes))


def write_mask_of(store: SlideStore, inside: Inside | None) -> None:
    """Keep the tissue of a slide as its mask; of a part, all of the part: people have chosen it."""
    if inside is None:
        write_tissue(store)
        return
    full = store.pyramid.extent
    extent = thumbnail_extent(full, TISSUE_PX)
    mask = inside.rows(None, full, extent, touched=True)
    write_mask(store, mask, downsample=full.width / extent.width)


def _touched(inside: Inside, full: Extent, level: Extent, chunk: Extent) -> NDArray[np.bool_]:
    ys, xs = range(0, level.height, chunk.height), range(0, level.width, chunk.width)
    return inside.touched(None, full, level, ys, xs, chunk)
