"""Owns how a slide looks in a notebook: a small picture beside what is known of it."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from wsi_seg.errors import SlideError
from wsi_seg.geometry import Region
from wsi_seg.notebook import facts_html, picture_html

if TYPE_CHECKING:
    from wsi_seg.slides.slide import Slide

_LONGEST_PX = 160

# A slide whose coarsest level has more px than this is told in words alone.
_MOST_PX = 2**24


def slide_html(slide: "Slide") -> str:
    """Show a slide: its thumbnail, size, mpp and levels."""
    pyramid = slide.pyramid
    mpp = "unknown" if pyramid.mpp is None else f"{pyramid.mpp:.4g} µm per px ({slide.mpp_source})"
    levels = ", ".join(f"{level.width} × {level.height}" for level in pyramid.extents)
    facts = {"format": slide.format, "mpp": mpp, "levels": levels}
    return facts_html(_thumbnail(slide), slide.name, facts)


def _thumbnail(slide: "Slide") -> str:
    coarsest = len(slide.pyramid.extents) - 1
    extent = slide.pyramid.extents[coarsest]
    if extent.area > _MOST_PX:
        return ""
    whole = Region(level=coarsest, y=0, x=0, height=extent.height, width=extent.width)
    try:
        picture = Image.fromarray(slide.read(whole))
    except SlideError:  # a damaged slide has to be told by name too
        return "(damaged)"
    picture.thumbnail((_LONGEST_PX, _LONGEST_PX), Image.Resampling.BOX)
    return picture_html(np.asarray(picture))
