"""Owns selecting the chunks to tile of a part of a slide; all other chunks stay missing."""

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
    """Raise an error if the part is a class: slides have no annotations before they are tiled.

    Raises
    ------
    ConfigError
        If the part is a class.
    """
    if inside is not None and inside.class_name is not None:
        raise ConfigError(
            f"got class {inside.class_name!r} of slides that are not tiled yet, so have no "
            "annotations; expected a GeoJSON file of polygons, or --bbox"
        )


def wanted_chunks(
    inside: Inside | None, full: Extent, level: Extent, chunk: Extent
) -> NDArray[np.bool_] | None:
    """Return the chunks of a level that intersect a part.

    Parameters
    ----------
    inside
        Part of the slide; None is the whole slide.
    full, level
        Size of level 0, and size of the level, each in its own pixels.
    chunk
        Size of a chunk, in pixels of the level.

    Returns
    -------
    NDArray[np.bool_] or None
        ``(rows, columns)`` of the grid of chunks; None for all chunks.
    """
    return None if inside is None else _touched(inside, full, level, chunk)


def only_part(plan: LevelPlan, inside: Inside | None, full: Extent) -> LevelPlan:
    """Restrict the plan of a level to copying the streams of chunks that intersect the part."""
    if plan.streams is None or inside is None:
        return plan
    wanted = _touched(inside, full, plan.layout.extent, plan.streams.tile)
    sizes = np.where(wanted.ravel(), plan.streams.sizes, 0)
    return replace(plan, streams=replace(plan.streams, sizes=sizes))


def write_mask_of(store: SlideStore, inside: Inside | None) -> None:
    """Write the mask of a slide: detected tissue, or all of the part that the user has chosen."""
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
