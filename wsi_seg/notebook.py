"""Owns notebook representations: lines of text, and slides as thumbnails with metadata."""

import base64
import html
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from wsi_seg.counts import counted
from wsi_seg.errors import SlideError, StoreError
from wsi_seg.geometry import Pyramid

LONGEST_PX = 160

# Maximum number of slides of a collection that are shown; the others are counted.
SHOWN = 24

# Returns a slide's thumbnail, ``(H, W, 3)`` uint8 RGB, or None.
ReadThumbnail = Callable[[], NDArray[np.uint8] | None]


def lines_html(lines: Iterable[str]) -> str:
    """Return preformatted text."""
    return f"<pre>{html.escape(chr(10).join(lines))}</pre>"


def slide_html(
    name: str, pyramid: Pyramid, facts: Mapping[str, str], thumbnail: ReadThumbnail
) -> str:
    """Return a slide: its thumbnail next to name, size, mpp, levels and facts."""
    mpp = "unknown" if pyramid.mpp is None else f"{pyramid.mpp:.4g} µm per pixel"
    levels = ", ".join(f"{level.width} × {level.height}" for level in pyramid.extents)
    shown = {"size": str(pyramid.extent), "mpp": mpp, "levels": levels, **facts}
    rows = "<br>".join(f"{key}: {html.escape(value)}" for key, value in shown.items())
    return (
        f'<div style="display:flex;gap:16px;align-items:center">{_picture(thumbnail)}'
        f"<div><b>{html.escape(name)}</b><br>{rows}</div></div>"
    )


def collection_html(
    title: str, slides: Iterable[tuple[str, Pyramid, ReadThumbnail]], count: int
) -> str:
    """Return the thumbnails and names of slides; ``count`` is the total number of slides."""
    parts = [
        f'<figure style="margin:0;width:{LONGEST_PX}px">{_picture(thumbnail)}'
        f'<figcaption style="overflow-wrap:anywhere">{html.escape(name)}<br>'
        f"{pyramid.extent}</figcaption></figure>"
        for name, pyramid, thumbnail in slides
    ]
    more = f"<p>and {count - len(parts)} more</p>" if count > len(parts) else ""
    return (
        f"<p><b>{html.escape(title)}</b>: {counted(count, 'slide')}</p>"
        f'<div style="display:flex;flex-wrap:wrap;gap:16px">{"".join(parts)}</div>{more}'
    )


def picture_png(thumbnail: ReadThumbnail) -> bytes | None:
    """Return a thumbnail as PNG, for notebooks without HTML; None without a thumbnail."""
    import imagecodecs  # slow to load, and most programs draw nothing

    try:
        pixels = thumbnail()
    except (SlideError, StoreError):  # as in `_picture`
        return None
    return None if pixels is None else bytes(imagecodecs.png_encode(pixels))


def _picture(thumbnail: ReadThumbnail) -> str:
    """Return a thumbnail as an inline image."""
    import imagecodecs  # slow to load, and most programs draw nothing

    try:
        pixels = thumbnail()
    except (SlideError, StoreError):  # the name of a damaged slide is still shown
        return "(damaged)"
    if pixels is None:
        return ""
    data = base64.b64encode(bytes(imagecodecs.jpeg8_encode(pixels, level=80))).decode("ascii")
    return f'<img alt="" src="data:image/jpeg;base64,{data}">'
