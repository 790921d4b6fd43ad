"""Owns how stores look in a notebook: small pictures beside names, sizes and labels."""

import html
from collections.abc import Mapping, Sequence
from itertools import islice

from wsi_seg.errors import StoreError
from wsi_seg.notebook import facts_html, picture_html
from wsi_seg.store.multiscale import Multiscale
from wsi_seg.store.thumbnail import read_thumbnail, thumbnail_extent

_LONGEST_PX = 160

# Slides of a collection that are drawn; the others are counted.
_SHOWN = 24


def store_html(name: str, image: Multiscale, labels: Sequence[str]) -> str:
    """One slide: its thumbnail and what is known of it."""
    pyramid = image.pyramid
    mpp = "unknown" if pyramid.mpp is None else f"{pyramid.mpp:.4g} µm per px"
    levels = ", ".join(f"{level.width} × {level.height}" for level in pyramid.extents)
    rows = {"size": str(pyramid.extent), "mpp": mpp, "levels": levels}
    rows["labels"] = ", ".join(labels) or "none"
    return facts_html(_thumbnail(image), name, rows)


def collection_html(title: str, images: Mapping[str, Multiscale]) -> str:
    """All slides of a collection, as thumbnails with their names."""
    parts = [
        f'<figure style="margin:0;width:{_LONGEST_PX}px">{_thumbnail(image)}'
        f'<figcaption style="overflow-wrap:anywhere">{html.escape(name)}<br>'
        f"{image.pyramid.extent}</figcaption></figure>"
        for name, image in islice(images.items(), _SHOWN)
    ]
    more = f"<p>and {len(images) - _SHOWN} more</p>" if len(images) > _SHOWN else ""
    return (
        f"<p><b>{html.escape(title)}</b>: {len(images)} slides</p>"
        f'<div style="display:flex;flex-wrap:wrap;gap:16px">{"".join(parts)}</div>{more}'
    )


def _thumbnail(image: Multiscale) -> str:
    """Picture with its bytes inside; empty where there is none to draw."""
    if image.channels != 3:  # probabilities
        return ""
    try:
        extent = thumbnail_extent(image.pyramid.extent, _LONGEST_PX)
        return picture_html(read_thumbnail(image, extent))
    except StoreError:  # a damaged slide has to be told by name too
        return "(damaged)"
