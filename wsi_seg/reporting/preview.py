"""Owns pictures of what training would see: where patches are drawn, and how they look.

For each slide one picture - the slide with tissue, labels and 200 drawn patches next to the map
that they were drawn by - and one sheet of augmented patches with the outlines of their labels; and
one picture over all slides of the mean label by its place in the patch, which is to be even.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from wsi_seg.atomic import atomic_path
from wsi_seg.batch import SlidesReport, run_each
from wsi_seg.classes import ClassTable
from wsi_seg.config import Recipe
from wsi_seg.data.augment import Augmenter
from wsi_seg.data.source import PatchSource, class_mask
from wsi_seg.errors import ConfigError, OutputError
from wsi_seg.exporting.names import file_name
from wsi_seg.geometry import Extent
from wsi_seg.learn.position_bias import means_by_position, middle_and_corners
from wsi_seg.learn.sampler import patch_sampler, patch_sides
from wsi_seg.progress import Progress
from wsi_seg.reading.resample import read_label
from wsi_seg.reading.thumbnail import thumbnail_extent
from wsi_seg.reading.view import View
from wsi_seg.reporting.position_bias import position_picture
from wsi_seg.sampling import Draws, Layer
from wsi_seg.sampling.counters import Stream, random_bits
from wsi_seg.sampling.maps import TrainingSlide
from wsi_seg.store import SlideStore, read_thumbnail
from wsi_seg.store.names import TISSUE

Pixels = NDArray[np.uint8]

_PICTURE_PX = 900
_SHOWN = 200
_SHEET = (4, 8)
_SHEET_PX = 160
# Draws that a slide's map is counted from, for an even picture; where there are more slides than
# so many, they share the draws.
_COUNTED = 40_000
_COUNTED_SLIDES = 25
# Patches that the mean label is taken from.
_AVERAGED = 1000
_MAP_CELLS = 90
_MARGIN_PX = 16
_LINE_PX = 24
_TISSUE_RGB = (0, 114, 178)

# Okabe and Ito's palette, distinct for colour-blind readers.
_LAYERS = {
    Layer.OBJECTS: ("around objects", (0, 0, 0)),
    Layer.TISSUE: ("tissue", (86, 180, 233)),
    Layer.BACKGROUND: ("background", (120, 120, 120)),
    Layer.BOUNDARY: ("boundaries", (204, 121, 167)),
    Layer.HARD_NEGATIVES: ("hard negatives", (240, 228, 66)),
    Layer.REGIONS: ("regions", (0, 158, 115)),
    Layer.EMPTY: ("empty slides", (0, 114, 178)),
}


@dataclass(frozen=True, slots=True)
class PreviewReport(SlidesReport[str]):
    """Pictures that were written: two for each slide, and the mean label of each class."""

    out: Path
    pictures: tuple[Path, ...]

    def lines(self) -> list[str]:
        """Figures as sentences for people."""
        return [f"{len(self.pictures)} pictures in {self.out}"]


def preview_slides(
    stores: Sequence[SlideStore], recipe: Recipe, out: Path, *, progress: Progress
) -> PreviewReport:
    """Draw the pictures of some slides.

    Parameters
    ----------
    stores
        The slides; those without the recipe's label are left out.
    recipe
        Says what is learned, where patches are drawn and how they are changed.
    out
        Folder for the pictures; made when absent.
    progress
        Advanced by slides.

    Returns
    -------
    PreviewReport
        Its `PreviewReport.require_whole` raises if some slides could not be drawn.

    Raises
    ------
    ConfigError
        If no slide has the label, or one of the recipe's classes has no object on any.
    OutputError
        If the folder cannot be made.
    """
    wanted = [store for store in stores if recipe.data.label in store.label_names()]
    if not wanted:
        raise ConfigError(
            f"none of the {len(stores)} slides has the label {recipe.data.label!r}; run "
            "`wsi-seg annotate`"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}") from error
    named = {store.name: store for store in wanted}

    def read(name: str) -> TrainingSlide:
        slide = TrainingSlide.of(named[name], recipe.data.label)
        slide.map(recipe, patch_sides(slide.store, recipe))  # a damaged mask fails this slide alone
        return slide

    found = run_each(named, read, title="read", progress=progress)
    slides = list(found.results.values())
    if not slides:
        return PreviewReport((), out, (), failures=found.failures)
    draws = _draws(slides, recipe)

    def work(name: str) -> tuple[Path, Path]:
        number = slides.index(found.results[name])
        return _preview(slides[number], recipe, _of_slide(draws, number), out)

    batch = run_each(found.results, work, title="preview", progress=progress)
    pictures = [path for paths in batch.results.values() for path in paths]
    if batch.results:
        pictures.append(_save(_mean_labels(slides, recipe, draws), out / "mean-label.png"))
    failures = {**found.failures, **batch.failures}
    return PreviewReport(tuple(batch.results), out, tuple(pictures), failures=failures)


def _draws(slides: Sequence[TrainingSlide], recipe: Recipe) -> Draws:
    """Draws of an epoch over all slides, as training makes them."""
    count = _COUNTED * min(len(slides), _COUNTED_SLIDES)
    sampling = recipe.sampling.model_copy(update={"patches_per_epoch": count})
    return patch_sampler(slides, recipe.model_copy(update={"sampling": sampling})).epoch(0)


def _of_slide(draws: Draws, number: int) -> Draws:
    """Those draws that are on one of the slides."""
    on = draws.slide == number
    return Draws(*(getattr(draws, field.name)[on] for field in fields(draws)))


def _preview(slide: TrainingSlide, recipe: Recipe, draws: Draws, out: Path) -> tuple[Path, Path]:
    source = PatchSource.of(
        slide.store, slide.label, classes=recipe.class_table, view=View.of(recipe)
    )
    whole = _slide_picture(slide.store, source, recipe, draws)
    sheet = _sheet(source, recipe, draws)
    return (
        _save(whole, out / file_name(slide.name, ".png")),
        _save(sheet, out / file_name(slide.name, "_patches.png")),
    )


def _save(picture: Image.Image, path: Path) -> Path:
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")
    return path


def _mean_labels(slides: Sequence[TrainingSlide], recipe: Recipe, draws: Draws) -> Image.Image:
    """Mean label of each class by its place in the patch, before augmentation."""
    count = min(_AVERAGED, len(draws))
    sources = [
        PatchSource.of(slide.store, slide.label, classes=recipe.class_table, view=View.of(recipe))
        for slide in slides
    ]
    classes = recipe.class_table
    sums = np.zeros((len(classes), recipe.patch_px, recipe.patch_px))
    for slide, y, x in zip(draws.slide[:count], draws.y, draws.x, strict=False):
        label = sources[slide].truth(float(y), float(x), recipe.patch_px)
        for entry in classes:
            sums[entry.id - 1] += class_mask(label, entry.id, classes)
    means = [means_by_position(one / count) for one in sums]
    legend = [
        (f"{entry.name}: middle {middle:.3f}, corners {corners:.3f}", entry.rgb)
        for entry, (middle, corners) in zip(
            classes, (middle_and_corners(one) for one in means), strict=True
        )
    ]
    title = f"mean label of {count:,} patches of {recipe.patch_px} px, by place"
    return _framed([position_picture(one) for one in means], legend, title=title)


def _slide_picture(
    store: SlideStore, source: PatchSource, recipe: Recipe, draws: Draws
) -> Image.Image:
    full = store.pyramid.extent
    extent = thumbnail_extent(full, _PICTURE_PX)
    pixels = read_thumbnail(store.image, extent)
    pixels = _with_labels(pixels, source.masks(extent), recipe.class_table)
    if TISSUE in store.label_names():
        tissue = read_label(
            store.label(TISSUE), extent, 0, 0, height=extent.height, width=extent.width
        )
        pixels[_outline(tissue)] = _TISSUE_RGB
    left = Image.fromarray(pixels)
    scale = extent.width / full.width
    side = recipe.patch_px * full.width / source.scale.extent.width * scale
    pencil = ImageDraw.Draw(left)
    for index in range(min(_SHOWN, len(draws))):
        y, x = float(draws.y[index]) * scale, float(draws.x[index]) * scale
        colour = _LAYERS[Layer(int(draws.layer[index]))][1]
        pencil.rectangle([x - side / 2, y - side / 2, x + side / 2, y + side / 2], outline=colour)
    right = _heat(draws, full).resize(left.size, Image.Resampling.NEAREST)
    return _framed(
        [left, right],
        _legend(recipe, draws),
        title=f"{store.name}: {min(_SHOWN, len(draws))} patches, and how often each place is drawn",
    )


def _heat(draws: Draws, full: Extent) -> Image.Image:
    """Map of how often each place was drawn; the darkest is never, the lightest most often."""
    rows = max(1, round(_MAP_CELLS * min(1.0, full.height / full.width)))
    columns = max(1, round(_MAP_CELLS * min(1.0, full.width / full.height)))
    counts, _, _ = np.histogram2d(
        draws.y, draws.x, bins=(rows, columns), range=((0, full.height), (0, full.width))
    )
    shade = np.sqrt(counts / max(1.0, float(np.quantile(counts, 0.995)))).clip(0, 1)
    return Image.fromarray((colormaps["viridis"](shade)[..., :3] * 255).astype(np.uint8))


def _sheet(source: PatchSource, recipe: Recipe, draws: Draws) -> Image.Image:
    augmenter = Augmenter(recipe.augment)
    side = recipe.patch_px
    rows, columns = _SHEET
    sheet = Image.new("RGB", (columns * _SHEET_PX, rows * _SHEET_PX), (255, 255, 255))
    for index in range(min(rows * columns, len(draws))):
        cut = augmenter.side_to_cut(side)
        image, label = source.patch(float(draws.y[index]), float(draws.x[index]), cut)
        raw = random_bits(recipe.seed, 0, stream=Stream.AUGMENT, first=index, count=1)[0]
        image, label = augmenter(image, label, side=side, seeds=[int(w) >> 33 for w in raw])
        place = (index % columns * _SHEET_PX, index // columns * _SHEET_PX)
        sheet.paste(patch_picture(image, label, recipe, side_px=_SHEET_PX), place)
    title = f"{side} px patches, augmented ({_named(recipe)})"
    return _framed([sheet], _class_legend(recipe), title=title)


def patch_picture(image: Pixels, label: Pixels, recipe: Recipe, *, side_px: int) -> Image.Image:
    """Picture of a patch with the outlines of its truth.

    Parameters
    ----------
    image, label
        See `PatchSource.patch`.
    recipe
        Gives the classes' colours.
    side_px
        Side of the picture; its right and bottom line are white.
    """
    classes = recipe.class_table
    if middle := recipe.data.context_slices:
        image = np.repeat(image[..., middle : middle + 1], 3, axis=-1)
    patch = Image.fromarray(image).resize((side_px, side_px), Image.Resampling.BOX)
    pixels = np.asarray(patch).copy()
    for entry in classes:
        mask = Image.fromarray(class_mask(label, entry.id, classes).astype(np.uint8))
        small = mask.resize(patch.size, Image.Resampling.NEAREST)
        pixels[_outline(np.asarray(small))] = entry.rgb
    pixels[-1], pixels[:, -1] = 255, 255
    return Image.fromarray(pixels)


def _named(recipe: Recipe) -> str:
    return recipe.augment if isinstance(recipe.augment, str) else "steps of the recipe"


def _with_labels(pixels: Pixels, masks: Sequence[NDArray[np.bool_]], classes: ClassTable) -> Pixels:
    """Pixels with each class tinted and outlined."""
    tinted = pixels.copy()
    for entry, inside in zip(classes, masks, strict=False):  # the last ones may not be there
        tinted[inside] = (0.65 * pixels[inside] + 0.35 * np.array(entry.rgb)).astype(np.uint8)
        tinted[_outline(inside)] = entry.rgb
    return tinted


def _outline(mask: Pixels | NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask that touch one outside it."""
    inside = np.pad(mask != 0, 1)
    deep = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    line: NDArray[np.bool_] = inside[1:-1, 1:-1] & ~deep
    return line


def _legend(recipe: Recipe, draws: Draws) -> list[tuple[str, tuple[int, int, int]]]:
    kinds, counts = np.unique(draws.layer, return_counts=True)
    shares = [
        (f"{_LAYERS[Layer(kind)][0]} {count / len(draws):.0%}", _LAYERS[Layer(kind)][1])
        for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True)
    ]
    return [*_class_legend(recipe), ("tissue outline", _TISSUE_RGB), *shares]


def _class_legend(recipe: Recipe) -> list[tuple[str, tuple[int, int, int]]]:
    return [(entry.name, entry.rgb) for entry in recipe.class_table]


def _framed(
    pictures: Sequence[Image.Image],
    legend: Sequence[tuple[str, tuple[int, int, int]]],
    *,
    title: str,
) -> Image.Image:
    """Pictures side by side under a title, above a legend that breaks into lines."""
    font = ImageFont.load_default(15)
    width = sum(p.width for p in pictures) + _MARGIN_PX * (len(pictures) + 1)
    lines: list[list[tuple[int, str, tuple[int, int, int]]]] = [[]]
    x = _MARGIN_PX
    for text, colour in legend:
        wide = int(font.getlength(text)) + 44
        if x + wide > width and lines[-1]:
            lines.append([])
            x = _MARGIN_PX
        lines[-1].append((x, text, colour))
        x += wide
    top = _MARGIN_PX + _LINE_PX
    bottom = top + max(p.height for p in pictures) + _MARGIN_PX
    page = Image.new("RGB", (width, bottom + len(lines) * _LINE_PX + 8), (255, 255, 255))
    pencil = ImageDraw.Draw(page)
    pencil.text((_MARGIN_PX, _MARGIN_PX - 4), title, fill=(20, 20, 20), font=font)
    x = _MARGIN_PX
    for picture in pictures:
        page.paste(picture, (x, top))
        x += picture.width + _MARGIN_PX
    for number, line in enumerate(lines):
        y = bottom + number * _LINE_PX
        for x, text, colour in line:
            pencil.rectangle([x, y + 3, x + 14, y + 15], fill=colour)
            pencil.text((x + 20, y), text, fill=(20, 20, 20), font=font)
    return page
