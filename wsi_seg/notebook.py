"""Owns how objects look in a notebook: lines of text, and pictures with facts beside them."""

import base64
import html
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray


def lines_html(lines: Iterable[str]) -> str:
    """Text as it looks in a terminal."""
    return f"<pre>{html.escape(chr(10).join(lines))}</pre>"


def picture_html(pixels: NDArray[np.uint8]) -> str:
    """Picture, ``(H, W, 3)`` uint8 RGB, with its bytes inside."""
    import imagecodecs  # slow to load, and most programs draw nothing

    data = base64.b64encode(bytes(imagecodecs.jpeg8_encode(pixels, level=80))).decode("ascii")
    return f'<img alt="" src="data:image/jpeg;base64,{data}">'


def facts_html(picture: str, title: str, facts: Mapping[str, str]) -> str:
    """Title and facts, beside the HTML of a picture."""
    rows = "<br>".join(f"{key}: {html.escape(value)}" for key, value in facts.items())
    return (
        f'<div style="display:flex;gap:16px;align-items:center">{picture}'
        f"<div><b>{html.escape(title)}</b><br>{rows}</div></div>"
    )
