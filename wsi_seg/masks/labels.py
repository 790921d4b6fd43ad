"""Owns writing masks into a store: the tissue mask, and polygons as label maps at every level."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.annotations import Annotations
from wsi_seg.classes import DOUBT, ClassTable
from wsi_seg.geometry import Extent, Region
from wsi_seg.masks.boundary import BOUNDARY
from wsi_seg.masks.objects import Objects, measure_objects, write_objects
from wsi_seg.masks.rasterize import Rasterizer
from wsi_seg.masks.tissue import find_tissue
from wsi_seg.progress import Silent
from wsi_seg.store import (
    SlideStore,
    create_multiscale,
    discard,
    fill_pyramid,
    finish,
    halved,
    read_thumbnail,
    strip_rows,
    thumbnail_extent,
    tidy,
    write_strip,
)
from wsi_seg.store.layout import require_label_name

TISSUE = "tissue"

# Longer side of the image that tissue is searched in: about 10 to 50 um per px.
_TISSUE_PX = 2048


def write_tissue(store: SlideStore) -> None:
    """Find the tissue of a slide at low resolution and keep it as the label ``tissue``.

    Its longer side there is 2,048 px at most, so memory does not depend on the slide's size.
    """
    full = store.pyramid.extent
    extent = thumbnail_extent(full, _TISSUE_PX)
    mask = find_tissue(read_thumbnail(store.image, extent))

    down = full.width / extent.width
    _write_low(store, TISSUE, mask.astype(np.uint8), ClassTable.named([TISSUE]), down)


def write_values(
    store: SlideStore, name: str, values: NDArray[np.uint8], *, downsample: float
) -> None:
    """Keep a small map of values, such as how hard each place is, as a label without classes.

    Parameters
    ----------
    store
        The slide.
    name
        Name of the label; one that exists is replaced.
    values
        ``(H, W)`` uint8 of the whole slide at a low resolution.
    downsample
        Level-0 px per px of the map.
    """
    _write_low(store, name, values, ClassTable(()), downsample)


def write_mask(store: SlideStore, mask: NDArray[np.bool_], *, downsample: float) -> None:
    """Keep a mask as the label ``tissue``, in place of the one found by colour.

    Unlike that one it is believed where it is empty: then nothing of the slide is predicted.

    Parameters
    ----------
    store
        The slide.
    mask
        ``(H, W)`` of the whole slide at a low resolution.
    downsample
        Level-0 px per px of the mask.
    """
    classes = ClassTable.named([TISSUE])
    _write_low(store, TISSUE, mask.astype(np.uint8), classes, downsample, believed=True)


def _write_low(
    store: SlideStore,
    name: str,
    values: NDArray[np.uint8],
    classes: ClassTable,
    down: float,
    *,
    believed: bool = False,
) -> None:
    def fill(path: Path) -> None:
        rows = strip_rows(path)
        for y in range(0, len(values), rows):
            write_strip(path, 0, y, values[y : y + rows])
        fill_pyramid(path, nearest=True, progress=Silent())

    extents = halved(Extent(*values.shape), len(store.pyramid.extents))
    _write_label(store, name, extents, classes, fill, downsample=down, believed=believed)


def write_labels(
    store: SlideStore,
    annotations: Annotations,
    classes: ClassTable,
    name: str,
    *,
    samples: int = 1,
) -> Objects:
    """Draw annotations into the store as the label ``name``, at every level of the image.

    Each level is drawn from the polygons themselves. Strips without any stay missing. Annotations
    of the class ``ignore`` are drawn as 255 and are no objects, nor are strips of ``boundary``.
    Where some weigh less than 1, a map inside the label says so for training.

    Parameters
    ----------
    store, annotations, classes
        The slide, what is drawn, and the ids.
    name
        Name of the label; one that exists is replaced.
    samples
        See `Rasterizer.draw`; level 0 always takes one.

    Returns
    -------
    Objects
        The table that is kept beside the label.
    """
    wanted = set(classes.names) - {BOUNDARY}
    kept = [item for item in annotations.items if item.class_name in wanted]
    rasterizer = Rasterizer(annotations.items, classes)
    pyramid = store.pyramid

    def fill(path: Path) -> None:
        _draw(path, rasterizer, pyramid.extents, samples)
        if any(item.weight < 1 for item in kept):
            doubts = Rasterizer.of_doubts(annotations.items, classes)
            _make(path / DOUBT, store, pyramid.extents, {"kind": "doubt"})
            _draw(path / DOUBT, doubts, pyramid.extents, 1)
        write_objects(path, objects)

    objects = measure_objects(kept, pyramid.mpp)
    _write_label(store, name, pyramid.extents, classes, fill)
    return objects


def _draw(path: Path, rasterizer: Rasterizer, extents: Sequence[Extent], samples: int) -> None:
    """Draw all levels, each from the polygons themselves."""
    for level, extent in enumerate(extents):
        scale = extents[0].height / extent.height, extents[0].width / extent.width
        rows = strip_rows(path, level)
        for y in range(0, extent.height, rows):
            height = min(rows, extent.height - y)
            region = Region(level=level, y=y, x=0, height=height, width=extent.width)
            drawn = rasterizer.draw(region, scale, samples=samples if level else 1)
            if drawn.any():
                write_strip(path, level, y, drawn)


def _write_label(
    store: SlideStore,
    name: str,
    extents: Iterable[Extent],
    classes: ClassTable,
    fill: Callable[[Path], None],
    *,
    downsample: float = 1.0,
    believed: bool = False,
) -> None:
    """Make a label beside the store's image and give it its name when it is whole."""
    require_label_name(name)
    partial = store.path / ".partial" / name
    discard(partial)
    about = {"kind": "label", "classes": classes.to_json(), "believed": believed}
    _make(partial, store, extents, about, downsample=downsample)
    fill(partial)
    finish(partial, store.path / "labels" / name, replace=True)
    tidy(store.path)


def _make(
    path: Path,
    store: SlideStore,
    extents: Iterable[Extent],
    about: Mapping[str, object],
    *,
    downsample: float = 1.0,
) -> None:
    """Make an empty map of the slide."""
    create_multiscale(
        path,
        extents=list(extents),
        channels=None,
        mpp=store.pyramid.mpp,
        downsample=downsample,
        attributes=dict(about),
        name=path.name,
    )
