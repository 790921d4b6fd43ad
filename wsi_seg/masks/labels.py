"""Owns writing masks to a store: the tissue mask, and polygons as label maps at every level."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_seg.annotations import Annotation, Annotations
from wsi_seg.classes import DOUBT, IGNORE, ClassTable
from wsi_seg.geometry import Extent, Region, dyadic_extents
from wsi_seg.masks.boundary import BOUNDARY
from wsi_seg.masks.objects import Objects, measure_objects, write_objects
from wsi_seg.masks.rasterize import SPECIAL_IDS, Rasterizer
from wsi_seg.masks.tissue import find_tissue
from wsi_seg.reading.thumbnail import thumbnail_extent
from wsi_seg.store import Draft, LabelInfo, Layout, SlideStore, read_thumbnail, writing
from wsi_seg.store.group import require_label_name
from wsi_seg.store.names import LABELS, TISSUE

# Longer side of the thumbnail in which tissue is detected: about 10 to 50 um per pixel.
TISSUE_PX = 2048


def write_tissue(store: SlideStore) -> None:
    """Detect the tissue of a slide at low resolution and write it as the label ``tissue``.

    The mask has at most 2,048 px on its longer side, so memory does not depend on the slide.
    """
    full = store.pyramid.extent
    extent = thumbnail_extent(full, TISSUE_PX)
    mask = find_tissue(read_thumbnail(store.image, extent))

    down = full.width / extent.width
    info = LabelInfo(classes=ClassTable.named([TISSUE]))
    _write_low(store, TISSUE, mask.astype(np.uint8), info, downsample=down)


def write_values(
    store: SlideStore, name: str, values: NDArray[np.uint8], *, downsample: float
) -> None:
    """Write a small map of values, such as hard negatives, as a label without classes.

    Parameters
    ----------
    store
        The slide.
    name
        Name of the label; an existing one is replaced.
    values
        ``(H, W)`` uint8 of the whole slide at a low resolution.
    downsample
        Level-0 pixels per pixel of the map.
    """
    _write_low(store, name, values, LabelInfo(), downsample=downsample)


def write_mask(store: SlideStore, mask: NDArray[np.bool_], *, downsample: float) -> None:
    """Write a mask as the label ``tissue``, in place of the one detected by colour.

    Unlike that one, it is trusted even if it is empty: then no part of the slide is predicted.

    Parameters
    ----------
    store
        The slide.
    mask
        ``(H, W)`` bool of the whole slide at a low resolution.
    downsample
        Level-0 pixels per pixel of the mask.
    """
    info = LabelInfo(classes=ClassTable.named([TISSUE]), trusted=True)
    _write_low(store, TISSUE, mask.astype(np.uint8), info, downsample=downsample)


def _write_low(
    store: SlideStore,
    name: str,
    values: NDArray[np.uint8],
    info: LabelInfo,
    *,
    downsample: float,
) -> None:
    layout = Layout.of(
        dyadic_extents(Extent.of(values.shape), len(store.pyramid.extents)),
        channels=None,
        mpp=store.pyramid.mpp,
        downsample=downsample,
    )
    with writing(store.path / LABELS / name, layout, info.to_json()) as draft:
        for strip in draft.strips():
            draft.write(strip, values[strip.slices])


def write_labels(
    store: SlideStore,
    annotations: Annotations,
    classes: ClassTable,
    name: str,
    *,
    samples: int = 1,
    covered: Collection[str] | None = None,
) -> Objects:
    """Draw annotations as the label ``name`` of the store, at every level of the image.

    Each level is drawn from the polygons. Empty strips are not written. Annotations of the class
    ``ignore`` are drawn as 255; they are not objects, and neither are strips of ``boundary``. If
    some weights are below 1, a map of them is written inside the label, for training.

    Parameters
    ----------
    store, annotations, classes
        The slide, its annotations, and the class ids.
    name
        Name of the label; an existing one is replaced.
    samples
        See `Rasterizer.draw`; level 0 always uses 1.
    covered
        If classes overlap, those that were annotated; the planes of the others are set to ignore.
        None means all.

    Returns
    -------
    Objects
        The object table that is written with the label.
    """
    require_label_name(name)
    names = set(classes.names) - {BOUNDARY}
    kept = [item for item in annotations.items if item.class_name in names]
    objects = measure_objects(kept, store.pyramid.mpp)
    layout = replace(Layout.like(store.image, channels=classes.planes), coarser=False)
    info = LabelInfo(classes=classes)
    with writing(store.path / LABELS / name, layout, info.to_json()) as draft:
        if classes.planes is None:
            _draw(draft, Rasterizer(annotations.items, classes).draw, samples)
        else:
            _draw(draft, _Planes(annotations.items, classes, covered).draw, samples)
        if any(item.weight < 1 for item in kept):
            doubts = Rasterizer.of_doubts(annotations.items, classes)
            plain = replace(layout, channels=None)
            _draw(draft.inside(DOUBT, plain, LabelInfo().to_json()), doubts.draw, 1)
        write_objects(draft.path, objects)
    return objects


class _Draw(Protocol):
    """Draws a region; see `Rasterizer.draw`."""

    def __call__(
        self, region: Region, downsample: tuple[float, float], *, samples: int = 1
    ) -> NDArray[np.uint8]: ...


class _Planes:
    """Draws each overlapping class in its own plane; see `ClassTable.planes`."""

    def __init__(
        self,
        items: Sequence[Annotation],
        classes: ClassTable,
        covered: Collection[str] | None,
    ) -> None:
        self._drawers = [
            Rasterizer([one for one in items if one.class_name in {name, *SPECIAL_IDS}], classes)
            if covered is None or name in covered
            else None
            for name in classes.names
        ]

    def draw(
        self, region: Region, downsample: tuple[float, float], *, samples: int = 1
    ) -> NDArray[np.uint8]:
        """Draw the planes of a region, ``(height, width, C)`` uint8; see `Rasterizer.draw`."""
        ignored = np.full((region.height, region.width), IGNORE, dtype=np.uint8)
        drawn = [
            ignored if one is None else one.draw(region, downsample, samples=samples)
            for one in self._drawers
        ]
        return np.stack(drawn, axis=-1)


def _draw(draft: Draft, draw: _Draw, samples: int) -> None:
    """Draw all levels from the polygons."""
    full, extents = draft.layout.extents[0], draft.layout.extents
    for level, extent in enumerate(extents):
        scale = full.height / extent.height, full.width / extent.width
        for strip in draft.strips(level):
            drawn = draw(strip, scale, samples=samples if level else 1)
            if drawn.any():
                draft.write(strip, drawn)
