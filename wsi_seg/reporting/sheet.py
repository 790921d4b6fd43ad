"""Owns the layout of images: rows, columns, captions and legends, on white."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

Rgb = tuple[int, int, int]

GAP_PX = 20
_TEXT_PX = 17
_WHITE, _TEXT = (255, 255, 255), (20, 25, 31)


def font_file() -> Path:
    """Return a sans-serif font with Greek letters, accents and the micro sign, unlike Pillow's."""
    return Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"


def font(size: int) -> ImageFont.FreeTypeFont:
    """Load the font of `font_file` in a size in pixels."""
    return ImageFont.truetype(font_file(), size)


def _line(words: str) -> str:
    """Join lines: slide names may contain line breaks, which Pillow cannot measure."""
    return " ".join(words.splitlines())


def text(words: str, *, scale: float = 1.0) -> Image.Image:
    """Draw one line of text."""
    letters, words = font(round(_TEXT_PX * scale)), _line(words)
    height = round(1.5 * _TEXT_PX * scale)
    page = Image.new("RGB", (int(letters.getlength(words)) + 1, height), _WHITE)
    ImageDraw.Draw(page).text((0, 0), words, fill=_TEXT, font=letters)
    return page


def captioned(picture: Image.Image, words: str, *, width: int = 0) -> Image.Image:
    """Add a caption below a picture, truncated to at least ``width`` pixels."""
    width = max(width, picture.width)
    letters = font(_TEXT_PX)
    shown = _line(words)
    while letters.getlength(shown) > width and len(shown) > 1:
        shown = f"{shown.removesuffix('…')[:-1]}…"
    page = Image.new("RGB", (width, picture.height + round(1.8 * _TEXT_PX)), _WHITE)
    page.paste(picture, (0, 0))
    ImageDraw.Draw(page).text((0, picture.height + 4), shown, fill=_TEXT, font=letters)
    return page


def row(pictures: Sequence[Image.Image]) -> Image.Image:
    """Arrange pictures side by side, aligned at the top."""
    width = sum(one.width for one in pictures) + GAP_PX * (len(pictures) - 1)
    page = Image.new("RGB", (width, max(one.height for one in pictures)), _WHITE)
    x = 0
    for one in pictures:
        page.paste(one, (x, 0))
        x += one.width + GAP_PX
    return page


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Stack pictures from top to bottom, with a margin around them."""
    width = max(one.width for one in pictures) + 2 * GAP_PX
    height = sum(one.height + GAP_PX for one in pictures) + GAP_PX
    page = Image.new("RGB", (width, height), _WHITE)
    y = GAP_PX
    for one in pictures:
        page.paste(one, (GAP_PX, y))
        y += one.height + GAP_PX
    return page


def keys(entries: Sequence[tuple[str, Rgb]], width: int) -> Image.Image:
    """Draw a legend of colours, in lines of at most ``width`` pixels."""
    letters, line = font(_TEXT_PX), round(1.6 * _TEXT_PX)
    places, x, y = [], 0, 0
    lines = [_line(words) for words, _ in entries]
    for words in lines:
        wide = int(letters.getlength(words)) + 48
        if x + wide > width and x:
            x, y = 0, y + line
        places.append((x, y))
        x += wide
    page = Image.new("RGB", (width, y + line), _WHITE)
    pencil = ImageDraw.Draw(page)
    for words, (_, colour), (left, top) in zip(lines, entries, places, strict=True):
        pencil.rectangle((left, top + 2, left + 15, top + 17), fill=colour)
        pencil.text((left + 22, top - 1), words, fill=_TEXT, font=letters)
    return page
