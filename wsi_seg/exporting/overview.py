"""Owns the overview picture: a thumbnail of the slide with the outlines of label maps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from wsi_seg.classes import ClassEntry, ClassTable
from wsi_seg.files.atomic import atomic_path
from wsi_seg.reading.resample import read_label
from wsi_seg.reading.thumbnail import thumbnail_extent
from wsi_seg.store import Multiscale, SlideStore, read_thumbnail

# Lengths of scale bars.
_BARS_UM = (50, 100, 200, 500, 1000, 2000, 5000, 10_000)

_DARK, _LIGHT = (20, 20, 20), (255, 255, 255)


def write_overview(
    slide: SlideStore,
    labels: Sequence[tuple[Multiscale, ClassTable]],
    path: Path,
    *,
    longest_px: int = 2400,
    font: Path | None = None,
) -> None:
    """Write a PNG of the whole slide with the outlines of label maps, a legend and a scale bar.

    Memory depends on ``longest_px``, not on the slide: a level of about that size is read.

    Parameters
    ----------
    slide
        The slide.
    labels
        Label maps of the same slide and their classes. The first is drawn with thick coloured
        lines, further ones, such as the ground truth, with thin black lines.
    path
        PNG file to write atomically.
    longest_px
        Maximum length of the picture's longer side, in pixels.
    font
        TrueType font of legend and scale bar; None takes Pillow's, which has no micro sign.
    """
    size = thumbnail_extent(slide.pyramid.extent, longest_px)
    picture = read_thumbnail(slide.image, size)
    for index, (label, classes) in enumerate(labels):
        ids = read_label(label, size, 0, 0, height=size.height, width=size.width)
        for entry in classes:
            _draw_outline(picture, ids == entry.id, entry, thick=index == 0)
    canvas = Image.fromarray(picture)
    entries = list(labels[0][1]) if labels else []
    mpp = slide.pyramid.mpp
    per_px = None if mpp is None else mpp * slide.pyramid.extent.width / size.width
    _annotate(canvas, entries, per_px, font)
    with atomic_path(path) as temporary:
        canvas.save(temporary, format="PNG")


def _draw_outline(
    picture: NDArray[np.uint8], mask: NDArray[np.bool_], entry: ClassEntry, *, thick: bool
) -> None:
    width = 2 if thick else 1
    edge = mask & ~ndimage.binary_erosion(mask, iterations=width, border_value=1)
    picture[edge] = entry.rgb if thick else (0, 0, 0)


def _annotate(
    canvas: Image.Image,
    entries: Sequence[ClassEntry],
    um_per_px: float | None,
    font_file: Path | None,
) -> None:
    """Draw a legend at the top left and a scale bar at the bottom left."""
    draw = ImageDraw.Draw(canvas)
    text_px = max(12, min(canvas.size) // 50)
    font = (
        ImageFont.load_default(size=text_px)
        if font_file is None
        else ImageFont.truetype(font_file, text_px)
    )
    margin, around = text_px, max(2, text_px // 6)  # a white halo, readable on dark tissue

    def write(x: float, y: float, text: str) -> None:
        draw.text((x, y), text, _DARK, font, stroke_width=around, stroke_fill=_LIGHT)

    def fill(left: int, top: int, right: int, bottom: int, colour: tuple[int, int, int]) -> None:
        grown = (left - around, top - around, right + around, bottom + around)
        draw.rectangle(grown, fill=_LIGHT)
        draw.rectangle((left, top, right, bottom), fill=colour)

    for index, entry in enumerate(entries):
        y = margin + index * 2 * text_px
        fill(margin, y, margin + text_px, y + text_px, entry.rgb)
        write(margin + 1.5 * text_px + around, y - text_px // 8, entry.name)
    if um_per_px is None:
        return
    fitting = [bar for bar in _BARS_UM if bar / um_per_px <= canvas.width / 4] or [_BARS_UM[0]]
    length = round(fitting[-1] / um_per_px)
    y = canvas.height - margin
    fill(margin, y - text_px // 3, margin + length, y, _DARK)
    um = "um" if font_file is None else "µm"
    text = f"{fitting[-1]} {um}" if fitting[-1] < 1000 else f"{fitting[-1] // 1000} mm"
    write(margin, y - 2 * text_px, text)
