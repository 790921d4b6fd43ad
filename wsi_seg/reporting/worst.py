"""Owns the report section of the patches with the highest loss."""

import csv
from pathlib import Path

from wsi_seg.config import Recipe, load_recipe
from wsi_seg.data.source import PatchSource
from wsi_seg.errors import WsiSegError
from wsi_seg.reading.view import View
from wsi_seg.reporting.page import Section, figure, figures, paragraph, picture
from wsi_seg.reporting.pictures import jpeg_of
from wsi_seg.reporting.preview import patch_picture
from wsi_seg.store import open_collection

RECIPE = "recipe.yaml"
WORST = "worst.csv"

_SHOWN = 12
_PICTURE_PX = 200


def worst_section(file: Path, title: str) -> Section:
    """Show the patches with the highest loss in the last epoch, with outlines of their labels.

    If the slides cannot be read, the section gives the reason instead.
    """
    try:
        parts = _pictures(file)
    except WsiSegError as error:
        return Section(title, paragraph(f"The patches cannot be shown: {error}"))
    return Section(title, figures(parts, "crops"))


def _recipe_of(file: Path) -> Recipe:
    """Return the recipe of the phase that wrote a file: patches differ in size and mpp."""
    recipe = load_recipe(next(path for up in file.parents if (path := up / RECIPE).is_file()))
    stages = dict(zip((phase.name for phase in recipe.phases), recipe.stages, strict=False))
    return stages.get(file.parent.name, recipe)


def _pictures(file: Path) -> list[str]:
    recipe = _recipe_of(file)
    stores = {s.name: s for path in recipe.data.stores for s in open_collection(path)}
    parts = []
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))[:_SHOWN]
    for row in rows:
        if row["slide"] not in stores:
            continue  # the collection has changed since
        source = PatchSource.of(
            stores[row["slide"]],
            recipe.data.label,
            classes=recipe.class_table,
            view=View.of(recipe),
        )
        image, label = source.patch(float(row["y"]), float(row["x"]), recipe.patch_px)
        shown = patch_picture(image, label, recipe, side_px=_PICTURE_PX)
        place = f"{row['slide']}, y {float(row['y']):.0f}, x {float(row['x']):.0f}"
        caption = f"{place}; loss {float(row['loss']):.3g}"
        parts.append(figure(picture(jpeg_of(shown), caption), caption))
    return parts
