"""Owns heat maps by position in a patch, and the report section about position bias."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from wsi_seg.learn.position_bias import PositionBias
from wsi_seg.reporting.page import Section, figure, figures, paragraph, picture
from wsi_seg.reporting.pictures import jpeg_of

_CELL_PX = 40
# Numbers are black in cells that are brighter than this fraction of the maximum.
_BRIGHT = 0.6


def position_picture(means: NDArray[np.float64]) -> Image.Image:
    """Draw a heat map of non-negative values by position, ``(parts, parts)`` float64."""
    top = max(float(means.max()), 1e-9)
    shades = means / top
    cells = (colormaps["viridis"](shades)[..., :3] * 255).astype(np.uint8)
    size = (means.shape[1] * _CELL_PX, means.shape[0] * _CELL_PX)
    image = Image.fromarray(cells).resize(size, Image.Resampling.NEAREST)
    pencil, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    for row, column in np.ndindex(*means.shape):
        colour = (0, 0, 0) if shades[row, column] > _BRIGHT else (255, 255, 255)
        place = (column * _CELL_PX + 6, row * _CELL_PX + 13)
        pencil.text(place, f"{means[row, column]:.2f}", fill=colour, font=font)
    return image


def position_section(file: Path, title: str) -> Section:
    """Show the responses of the best network to empty tiles, by position in the tile.

    Raises
    ------
    ConfigError
        If the file is damaged.
    """
    found = PositionBias.read(file)
    parts = [
        figure(picture(jpeg_of(position_picture(np.array(means))), caption), caption)
        for kind, classes in found.answers.items()
        for name, means in classes.items()
        for caption in [f"{name}, mean output for {kind} tiles by position"]
    ]
    text = "".join(paragraph(line) for line in found.lines())
    return Section(title, text + figures(parts, "plots"))
