"""Owns writing masks into a store: the tissue mask, and polygons as label maps at every level."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_seg.annotations import Annotations
from wsi_seg.classes import ClassTable
from wsi_seg.geometry import Extent, Region
from wsi_seg.masks.objects import Objects, measure_objects, write_objects
from wsi_seg.masks.rasterize import Rasterizer
from wsi_seg.masks.tissue import find_tissue
from wsi_seg.store import (
    SlideStore,
    create_multiscale,
    discard,
    finish,
    list_label,
    strip_rows,
    write_strip,
)

TISSUE = "tissue"

# Longer side of the image that tissue is searched in: about 10 to 50 um per px.
_TISSUE_PX = 2048


def write_tissue(store: SlideStore) -> None:
    """Find the tissue of a slide at low resolution and keep it as the label ``tissue``.

    The level whose longer side is nearest above `_TISSUE_PX` is reduced to that size, in bands,
    so memory does not depend on the slide's size.
    """
    full = store.pyramid.extent
    wanted = max(1.0, max(full.height, full.width) / _TISSUE_PX)
    level = store.pyramid.level_at_or_below(wanted)
    extent = full.scaled(wanted)
    mask = find_tissue(_reduced(store, level, extent))

    def fill(path: Path) -> None:
        rows = strip_rows(path)
        for y in range(0, extent.height, rows):
            write_strip(path, 0, y, mask[y : y + rows].astype(np.uint8))

    classes = ClassTable.named([TISSUE])
    _write_label(store, TISSUE, [extent], classes, fill, downsample=full.width / extent.width)


def write_labels(
    store: SlideStore, annotations: Annotations, classes: ClassTable, name: str
) -> Objects:
    """Draw annotations into the store as the label ``name``, at every level of the image.

    Each level is drawn from the polygons themselves. Strips without any stay missing.

    Returns
    -------
    Objects
        The table that is kept beside the label.
    """
    kept = [item for item in annotations.items if item.class_name in classes.names]
    rasterizer = Rasterizer(kept, classes)
    pyramid = store.pyramid

    def fill(path: Path) -> None:
        for level, extent in enumerate(pyramid.extents):
            scale = (
                pyramid.extent.height / extent.height,
                pyramid.extent.width / extent.width,
            )
            rows = strip_rows(path, level)
            for y in range(0, extent.height, rows):
                height = min(rows, extent.height - y)
                region = Region(level=level, y=y, x=0, height=height, width=extent.width)
                drawn = rasterizer.draw(region, scale)
                if drawn.any():
                    write_strip(path, level, y, drawn)
        write_objects(path, objects)

    objects = measure_objects(kept, pyramid.mpp)
    _write_label(store, name, pyramid.extents, classes, fill)
    return objects


def _write_label(
    store: SlideStore,
    name: str,
    extents: Iterable[Extent],
    classes: ClassTable,
    fill: Callable[[Path], None],
    *,
    downsample: float = 1.0,
) -> None:
    """Make a label beside the store's image and give it its name when it is whole."""
    partial = store.path / ".partial" / name
    discard(partial)
    create_multiscale(
        partial,
        extents=list(extents),
        channels=None,
        mpp=store.pyramid.mpp,
        downsample=downsample,
        attributes={"kind": "label", "classes": classes.to_json()},
        name=name,
    )
    fill(partial)
    final = store.path / "labels" / name
    discard(final)
    finish(partial, final)
    list_label(final.parent, name)


def _reduced(store: SlideStore, level: int, size: Extent) -> NDArray[np.uint8]:
    """Level of the image, area-averaged to a size, ``(H, W, 3)`` uint8."""
    extent = store.pyramid.extents[level]
    out = np.empty((size.height, size.width, 3), dtype=np.uint8)
    bands = -(-extent.area // 2**25)
    edges = np.linspace(0, size.height, min(bands, size.height) + 1).astype(int).tolist()
    for top, bottom in pairwise(edges):
        y = top * extent.height // size.height
        y_end = max(y + 1, bottom * extent.height // size.height)
        band = store.image.read(Region(level=level, y=y, x=0, height=y_end - y, width=extent.width))
        small = Image.fromarray(band).resize((size.width, bottom - top), Image.Resampling.BOX)
        out[top:bottom] = np.asarray(small)
    return out
