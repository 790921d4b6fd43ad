"""Owns the images of reports: overviews with outlines, and crops of found and missed objects."""

import io
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from shapely.geometry import Polygon

from wsi_seg.evaluation.review_objects import ReviewObject
from wsi_seg.exporting.overview import write_overview
from wsi_seg.geometry import Region
from wsi_seg.postprocess.label_map import predicted_planes
from wsi_seg.reporting.sheet import font_file
from wsi_seg.store import SlideStore
from wsi_seg.store.class_view import each_class

_OVERVIEW_PX = 1200
_CROP_PX = 240
_QUALITY = 82

# Same colours as in the viewer; Okabe and Ito's palette (2008).
_COLOURS = {"found": "#e69f00", "false": "#0072b2", "missed": "#d55e00"}


@dataclass(frozen=True, slots=True)
class Crop:
    """JPEG image around one object, and its caption."""

    jpeg: bytes
    caption: str


def overview(slide: SlideStore, found: SlideStore) -> bytes:
    """Draw the whole slide with the outlines of its prediction, as JPEG."""
    parts = [(part, part.classes) for part in each_class(predicted_planes(found))]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "overview.png"
        write_overview(slide, parts, file, longest_px=_OVERVIEW_PX, font=font_file())
        with Image.open(file) as image:
            return jpeg_of(image)


def is_wrong(one: ReviewObject) -> bool:
    """Return whether an object was missed, or was found but is mostly not true."""
    return one.status in ("false", "missed")


def worst_and_typical(
    objects: Iterable[tuple[str, ReviewObject]], count: int
) -> tuple[list[tuple[str, ReviewObject]], list[tuple[str, ReviewObject]]]:
    """Return the wrong objects with the largest errors, and right ones with median errors.

    Parameters
    ----------
    objects
        Pairs of slide name and object, of all slides.
    count
        Maximum number of each kind.
    """
    known = [pair for pair in objects if pair[1].error_mass is not None]
    known.sort(key=lambda pair: -(pair[1].error_mass or 0))
    right = [pair for pair in known if not is_wrong(pair[1])]
    first = max(0, (len(right) - count) // 2)
    return [pair for pair in known if is_wrong(pair[1])][:count], right[first : first + count]


def crop(slide: SlideStore, one: ReviewObject) -> Crop:
    """Draw one object with its surroundings."""
    x, y, x_end, y_end = one.polygon.bounds
    side = 1.8 * max(x_end - x, y_end - y, 32)
    pyramid = slide.pyramid
    level = pyramid.level_at_or_below(max(1.0, side / _CROP_PX))
    extent = pyramid.extents[level]
    scale_x, scale_y = pyramid.extent.width / extent.width, pyramid.extent.height / extent.height
    region = Region(
        level=level,
        y=round(((y + y_end) - side) / 2 / scale_y),
        x=round(((x + x_end) - side) / 2 / scale_x),
        height=max(1, round(side / scale_y)),
        width=max(1, round(side / scale_x)),
    )
    seen = region.clip(extent)
    image = Image.new("RGB", (region.width, region.height), "#e8e8e8")
    image.paste(Image.fromarray(slide.image.read(seen)), (seen.x - region.x, seen.y - region.y))
    zoom = _CROP_PX / region.width
    image = image.resize((_CROP_PX, _CROP_PX), Image.Resampling.LANCZOS)
    _outline(image, one.polygon, _COLOURS[one.status], region, (zoom / scale_x, zoom / scale_y))
    unit = "µm²" if pyramid.mpp is not None else "px²"
    return Crop(
        jpeg_of(image), f"{slide.name}: {one.class_name}, {one.status}; {one.area:,.0f} {unit}"
    )


def _outline(
    image: Image.Image,
    polygon: Polygon,
    colour: str,
    region: Region,
    scale: tuple[float, float],
) -> None:
    """Draw an outline; ``scale`` is the number of image pixels per level-0 pixel along x and y."""
    draw = ImageDraw.Draw(image)
    factor = _CROP_PX / region.width
    for ring in (polygon.exterior, *polygon.interiors):
        points = [
            (x * scale[0] - region.x * factor, y * scale[1] - region.y * factor)
            for x, y in ring.coords
        ]
        draw.line(points, fill="#000000", width=5, joint="curve")
        draw.line(points, fill=colour, width=3, joint="curve")


def jpeg_of(image: Image.Image) -> bytes:
    """Encode an image as JPEG."""
    out = io.BytesIO()
    image.convert("RGB").save(out, format="JPEG", quality=_QUALITY, optimize=True)
    return out.getvalue()
