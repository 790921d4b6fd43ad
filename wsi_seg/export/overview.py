"""Owns the overview picture: the whole slide, small, with the outlines of what was found."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from wsi_seg.classes import ClassEntry, ClassTable
from wsi_seg.export.files import written_whole
from wsi_seg.geometry import Extent, Region
from wsi_seg.store import Multiscale, SlideStore

# Lengths of scale bars people read at a glance, in um.
_BARS_UM = (50, 100, 200, 500, 1000, 2000, 5000, 10_000)


def write_overview(
    slide: SlideStore,
    labels: Sequence[tuple[Multiscale, ClassTable]],
    path: Path,
    *,
    longest_px: int = 2400,
) -> None:
    """Write a PNG of the whole slide with the outlines of label maps, a legend and a scale bar.

    Memory depends on ``longest_px``, not on the slide: a level of about that size is read.

    Parameters
    ----------
    slide
        The slide.
    labels
        Label maps of the same slide and their classes; the first is drawn with thick lines, any
        further one (truth, say) with thin ones.
    path
        PNG file to write, whole or not at all.
    longest_px
        Longer side of the picture at most.
    """
    picture = overview_pixels(slide.image, longest_px)
    size = Extent(*picture.shape[:2])
    for index, (label, classes) in enumerate(labels):
        ids = _nearest(label, size)
        for entry in classes:
            _draw_outline(picture, ids == entry.id, entry, thick=index == 0)
    canvas = Image.fromarray(picture)
    entries = list(labels[0][1]) if labels else []
    mpp = slide.pyramid.mpp
    per_px = None if mpp is None else mpp * slide.pyramid.extent.width / size.width
    _annotate(canvas, entries, per_px)
    with written_whole(path) as temporary:
        canvas.save(temporary, format="PNG")


def overview_pixels(image: Multiscale, longest_px: int) -> NDArray[np.uint8]:
    """Whole image as ``(H, W, 3)`` uint8, its longer side at most ``longest_px``."""
    full = image.pyramid.extent
    wanted = max(1.0, max(full.height, full.width) / longest_px)
    level = image.pyramid.level_at_or_below(wanted)
    extent = image.pyramid.extents[level]
    target = full.scaled(wanted)
    pixels = np.empty((target.height, target.width, 3), dtype=np.uint8)
    # Band by band: a slide with few levels must not be held whole at a fine one.
    bands = max(1, extent.area // 2**25)
    edges = np.linspace(0, target.height, bands + 1).astype(int)
    for top, bottom in pairwise(edges):
        y = top * extent.height // target.height
        y_end = max(y + 1, bottom * extent.height // target.height)
        band = image.read(Region(level=level, y=y, x=0, height=y_end - y, width=extent.width))
        small = Image.fromarray(band).resize((target.width, bottom - top), Image.Resampling.BOX)
        pixels[top:bottom] = np.asarray(small)
    return pixels


def _nearest(label: Multiscale, size: Extent) -> NDArray[np.uint8]:
    """Label map sampled at the px centres of a picture of this size."""
    full = label.pyramid.extent
    level = label.pyramid.level_at_or_below(max(1.0, full.height / size.height))
    extent = label.pyramid.extents[level]
    rows = (2 * np.arange(size.height) + 1) * extent.height // (2 * size.height)
    columns = (2 * np.arange(size.width) + 1) * extent.width // (2 * size.width)
    ids = np.empty((size.height, size.width), dtype=np.uint8)
    step = max(1, 2**25 // extent.width)
    for first in range(0, size.height, max(1, step * size.height // extent.height)):
        chosen = rows[first : first + max(1, step * size.height // extent.height)]
        y, y_end = int(chosen[0]), int(chosen[-1]) + 1
        band = label.read(Region(level=level, y=y, x=0, height=y_end - y, width=extent.width))
        ids[first : first + len(chosen)] = band[np.ix_(chosen - y, columns)]
    return ids


def _draw_outline(
    picture: NDArray[np.uint8], mask: NDArray[np.bool_], entry: ClassEntry, *, thick: bool
) -> None:
    width = 2 if thick else 1
    edge = mask & ~ndimage.binary_erosion(mask, iterations=width, border_value=1)
    picture[edge] = entry.rgb if thick else (0, 0, 0)


def _annotate(canvas: Image.Image, entries: Sequence[ClassEntry], um_per_px: float | None) -> None:
    """Legend at the top left, scale bar at the bottom left."""
    draw = ImageDraw.Draw(canvas)
    text_px = max(12, min(canvas.size) // 50)
    font = ImageFont.load_default(size=text_px)
    margin = text_px
    for index, entry in enumerate(entries):
        y = margin + index * 2 * text_px
        draw.rectangle((margin, y, margin + text_px, y + text_px), fill=entry.rgb)
        draw.text((margin + 1.5 * text_px, y - text_px // 8), entry.name, (20, 20, 20), font)
    if um_per_px is None:
        return
    fitting = [bar for bar in _BARS_UM if bar / um_per_px <= canvas.width / 4] or [_BARS_UM[0]]
    length = round(fitting[-1] / um_per_px)
    y = canvas.height - margin
    draw.rectangle((margin, y - text_px // 3, margin + length, y), fill=(20, 20, 20))
    text = f"{fitting[-1]} µm" if fitting[-1] < 1000 else f"{fitting[-1] // 1000} mm"
    draw.text((margin, y - 1.8 * text_px), text, (20, 20, 20), font)
