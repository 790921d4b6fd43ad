"""Owns the preview of training data: where patches are sampled, and how they look augmented.

A single contact sheet shows the slides with tissue, labels and sampled patches; augmented patches
with the outlines of their labels; and the mean label by position in the patch, which should be
uniform.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from wsi_seg.batch import SlidesReport, run_each
from wsi_seg.classes import ClassTable
from wsi_seg.config import Recipe
from wsi_seg.counts import counted
from wsi_seg.data.augment import Augmenter
from wsi_seg.data.source import PatchSource, class_mask
from wsi_seg.errors import ConfigError
from wsi_seg.files.atomic import atomic_path
from wsi_seg.files.half_written import remove_partials
from wsi_seg.learn.dataset import with_colours
from wsi_seg.learn.position_bias import means_by_position, middle_and_corners
from wsi_seg.learn.sampler import patch_sampler, patch_sides
from wsi_seg.progress import Progress
from wsi_seg.reading.resample import read_label
from wsi_seg.reading.thumbnail import thumbnail_extent
from wsi_seg.reading.view import View
from wsi_seg.reporting.position_bias import position_picture
from wsi_seg.reporting.sheet import GAP_PX, Rgb, captioned, keys, row, stacked, text
from wsi_seg.sampling import Draws, Layer
from wsi_seg.sampling.counters import Stream, random_bits
from wsi_seg.sampling.maps import TrainingSlide
from wsi_seg.store import SlideStore, read_thumbnail
from wsi_seg.store.names import TISSUE

Pixels = NDArray[np.uint8]

MAX_SLIDES = 24

_SHEET_PX = 1640
_COLUMNS = 4
# Minimum and maximum number of patches that are outlined on a slide.
_MIN_OUTLINED, _MAX_OUTLINED = 4, 24
_PATCHES, _PATCHES_IN_ROW, _PATCH_PX = 24, 12, 118
# Number of patches that the mean label is computed from.
_AVERAGED = 1000
_TISSUE_RGB = (0, 114, 178)

# Okabe and Ito's palette, distinct for colour-blind readers.
_LAYERS = {
    Layer.OBJECTS: ("around objects", (0, 0, 0)),
    Layer.TISSUE: ("tissue", (86, 180, 233)),
    Layer.BACKGROUND: ("background", (120, 120, 120)),
    Layer.BOUNDARY: ("boundaries", (204, 121, 167)),
    Layer.HARD_NEGATIVES: ("hard negatives", (240, 228, 66)),
    Layer.REGIONS: ("regions", (0, 158, 115)),
    Layer.EMPTY: ("empty slides", (230, 159, 0)),
}


@dataclass(frozen=True, slots=True)
class PreviewReport(SlidesReport[str]):
    """Report of a preview.

    Parameters
    ----------
    picture
        PNG file of the contact sheet.
    left_out
        Number of slides that are not shown.
    """

    picture: Path
    left_out: int

    def lines(self) -> list[str]:
        """Report as lines of text."""
        more = f"; {self.left_out} more are left out (--slides)" if self.left_out else ""
        return [f"wrote {self.picture}: {counted(len(self.slides), 'slide')}{more}"]

    def _repr_png_(self) -> bytes:
        """Show the sheet in a notebook cell."""
        return self.picture.read_bytes()


@dataclass(frozen=True, slots=True, eq=False)
class _Card:
    """Parts of the sheet from one slide; ``sums`` are label counts, see `_label_sums`."""

    picture: Image.Image
    patches: tuple[Image.Image, ...]
    sums: NDArray[np.float64]
    layers: NDArray[np.uint8]


def preview_slides(
    stores: Sequence[SlideStore],
    recipe: Recipe,
    out: Path,
    *,
    most: int = MAX_SLIDES,
    progress: Progress,
) -> PreviewReport:
    """Draw the contact sheet of slides.

    Parameters
    ----------
    stores
        Stores of slides; those without the recipe's label are skipped.
    recipe
        Recipe with classes, sampling and augmentation.
    out
        PNG file to write atomically.
    most
        Maximum number of slides, which are evenly selected.
    progress
        Advanced by slides.

    Returns
    -------
    PreviewReport
        `PreviewReport.require_whole` raises if a slide could not be drawn.

    Raises
    ------
    ConfigError
        If no slide has the label, or one of the recipe's classes has no objects.
    OutputError
        If the file cannot be written.

    Examples
    --------
    >>> stores = list(open_collection("store.zarr"))  # doctest: +SKIP
    >>> preview_slides(stores, recipe, Path("preview.png"), progress=Silent())  # doctest: +SKIP
    """
    labelled = [store for store in stores if recipe.data.label in store.label_names()]
    if not labelled:
        raise ConfigError(
            f"got {counted(len(stores), 'slide')} without label {recipe.data.label!r}; run "
            "`wsi-seg annotate`"
        )
    count = min(most, len(labelled))
    chosen = [labelled[number * len(labelled) // count] for number in range(count)]
    named = {store.name: store for store in chosen}
    columns = min(_COLUMNS, math.ceil(math.sqrt(count)))
    side = _SHEET_PX // columns - GAP_PX

    def opened(name: str) -> tuple[TrainingSlide, PatchSource]:
        slide = TrainingSlide.of(named[name], recipe.data.label)
        slide.map(recipe, patch_sides(slide.store, recipe))  # raises here for a damaged mask
        classes, view = recipe.class_table, View.of(recipe)
        return slide, PatchSource.of(slide.store, slide.label, classes=classes, view=view)

    first = run_each(named, opened, title="opening", progress=progress)
    slides = {name: slide for name, (slide, _) in first.results.items()}
    colours = with_colours(recipe.augment, list(slides.values()))
    coloured = recipe.model_copy(update={"augment": colours})
    draws = _draws(slides, recipe, every=count == len(labelled)) if slides else {}

    def work(name: str) -> _Card:
        return _card(*first.results[name], coloured, draws[name], side, math.ceil(_PATCHES / count))

    batch = run_each(list(slides), work, title="preview", progress=progress)
    if batch.results:
        with atomic_path(out) as temporary:
            _sheet(batch.results, recipe, columns).save(temporary, format="PNG")
        remove_partials((out,))
    failures = {**first.failures, **batch.failures}
    return PreviewReport(tuple(batch.results), out, len(labelled) - count, failures=failures)


def _sheet(cards: Mapping[str, _Card], recipe: Recipe, columns: int) -> Image.Image:
    """Draw slides, patches and mean labels, from top to bottom."""
    side = _SHEET_PX // columns - GAP_PX
    shown = [captioned(card.picture, name, width=side) for name, card in cards.items()]
    # The first patch of each slide, then the second ones.
    most = max(len(card.patches) for card in cards.values())
    patches = [c.patches[n] for n in range(most) for c in cards.values() if n < len(c.patches)]
    layers = np.concatenate([card.layers for card in cards.values()])
    sums = np.sum([card.sums for card in cards.values()], axis=0)
    count = sum(len(card.layers) for card in cards.values())
    means = [means_by_position(one / count) for one in sums]
    figures = [
        f"{entry.name}: middle {middle:.3f}, corners {corners:.3f}"
        for entry, (middle, corners) in zip(
            recipe.class_table, map(middle_and_corners, means), strict=True
        )
    ]
    patch = recipe.patch_px
    return stacked(
        [
            text(f"Training data of {recipe.name}", scale=1.5),
            keys(_keys(recipe, layers), _SHEET_PX),
            *_rows(shown, columns),
            text(f"Patches of {patch} px, augmented ({_named(recipe)}), with outlines of labels"),
            *_rows(patches[:_PATCHES], _PATCHES_IN_ROW),
            text(f"Mean label of {count:,} patches by position, which should be uniform"),
            *_rows(
                [
                    captioned(position_picture(mean), figure, width=_SHEET_PX // _COLUMNS - GAP_PX)
                    for mean, figure in zip(means, figures, strict=True)
                ],
                _COLUMNS,
            ),
        ]
    )


def _rows(pictures: Sequence[Image.Image], columns: int) -> list[Image.Image]:
    return [row(pictures[n : n + columns]) for n in range(0, len(pictures), columns)]


def _card(
    slide: TrainingSlide, source: PatchSource, recipe: Recipe, draws: Draws, side: int, patches: int
) -> _Card:
    return _Card(
        _slide_picture(slide.store, source, recipe, draws, side),
        tuple(_patches(source, recipe, draws, patches)),
        _label_sums(source, recipe, draws),
        draws.layer,
    )


def _draws(slides: Mapping[str, TrainingSlide], recipe: Recipe, *, every: bool) -> dict[str, Draws]:
    """Sample patches of one training epoch; ``every`` states that no slide is left out."""
    sampling = recipe.sampling.model_copy(update={"patches_per_epoch": _AVERAGED})
    classes = recipe.classes
    if not every:  # classes of the recipe may be missing from a subset of the slides
        names = {name for slide in slides.values() for name in slide.objects.class_name}
        table = zip(classes.table, recipe.class_table, strict=True)
        seen = tuple(one for one, entry in table if names & {entry.name, *entry.parts})
        classes = classes.model_copy(update={"table": seen or classes.table})
    one = recipe.model_copy(update={"sampling": sampling, "classes": classes})
    draws = patch_sampler(list(slides.values()), one).epoch(0)
    return {name: _select(draws, draws.slide == number) for number, name in enumerate(slides)}


def _select(draws: Draws, mask: NDArray[np.bool_]) -> Draws:
    return Draws(**{one.name: getattr(draws, one.name)[mask] for one in fields(draws)})


def _label_sums(source: PatchSource, recipe: Recipe, draws: Draws) -> NDArray[np.float64]:
    """Count the pixels of each class by position in patches, ``(classes, side, side)`` float64."""
    classes = recipe.class_table
    sums = np.zeros((len(classes), recipe.patch_px, recipe.patch_px))
    for y, x in zip(draws.y, draws.x, strict=True):
        label = source.truth(float(y), float(x), recipe.patch_px)
        for entry in classes:
            sums[entry.id - 1] += class_mask(label, entry.id, classes)
    return sums


def _slide_picture(
    store: SlideStore, source: PatchSource, recipe: Recipe, draws: Draws, side_px: int
) -> Image.Image:
    """Draw a slide with tissue, labels and patches, with at most ``side_px`` on its longer side."""
    full = store.pyramid.extent
    extent = thumbnail_extent(full, side_px)
    pixels = read_thumbnail(store.image, extent)
    pixels = _with_labels(pixels, source.masks(extent), recipe.class_table)
    if TISSUE in store.label_names():
        tissue = read_label(
            store.label(TISSUE), extent, 0, 0, height=extent.height, width=extent.width
        )
        pixels[_outline(tissue)] = _TISSUE_RGB
    picture = Image.fromarray(pixels)
    pencil = ImageDraw.Draw(picture)
    scale = extent.width / full.width
    half = recipe.patch_px * full.width / source.scale.extent.width * scale / 2
    # At most as many as fit without overlap, so that the slide remains visible.
    room = int(extent.area / (2 * half) ** 2)
    for index in range(min(max(_MIN_OUTLINED, min(_MAX_OUTLINED, room)), len(draws))):
        y, x = float(draws.y[index]) * scale, float(draws.x[index]) * scale
        box = (x - half, y - half, x + half, y + half)
        pencil.rectangle(box, outline=(255, 255, 255), width=4)
        pencil.rectangle(box, outline=_LAYERS[Layer(int(draws.layer[index]))][1], width=2)
    return picture


def _patches(
    source: PatchSource, recipe: Recipe, draws: Draws, count: int
) -> Sequence[Image.Image]:
    """Draw the first patches, augmented as in training."""
    augmenter, side = Augmenter(recipe.augment), recipe.patch_px
    pictures = []
    for index in range(min(count, len(draws))):
        cut = augmenter.side_to_cut(side)
        image, label = source.patch(float(draws.y[index]), float(draws.x[index]), cut)
        # Different seeds for the same index on different slides.
        first = int(draws.slide[index]) * _AVERAGED + index
        raw = random_bits(recipe.seed, 0, stream=Stream.AUGMENT, first=first, count=1)[0]
        image, label = augmenter(image, label, side=side, seeds=[int(w) >> 33 for w in raw])
        pictures.append(patch_picture(image, label, recipe, side_px=_PATCH_PX))
    return pictures


def patch_picture(image: Pixels, label: Pixels, recipe: Recipe, *, side_px: int) -> Image.Image:
    """Draw a patch with the outlines of its label.

    Parameters
    ----------
    image, label
        See `PatchSource.patch`.
    recipe
        Recipe with the colours of the classes.
    side_px
        Side of the picture, including white lines at the right and the bottom.
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
    """Tint and outline the pixels of each class."""
    tinted = pixels.copy()
    for entry, inside in zip(classes, masks, strict=False):  # the last masks may be missing
        tinted[inside] = (0.65 * pixels[inside] + 0.35 * np.array(entry.rgb)).astype(np.uint8)
        tinted[_outline(inside)] = entry.rgb
    return tinted


def _outline(mask: Pixels | NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of a mask that are 4-connected to a pixel outside of it."""
    inside = np.pad(mask != 0, 1)
    deep = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    line: NDArray[np.bool_] = inside[1:-1, 1:-1] & ~deep
    return line


def _keys(recipe: Recipe, layers: NDArray[np.uint8]) -> list[tuple[str, Rgb]]:
    """List the colours of classes and layers, with the fractions of patches from each layer."""
    kinds, counts = np.unique(layers, return_counts=True)
    shares = [
        (f"{_LAYERS[Layer(kind)][0]} {count / len(layers):.0%}", _LAYERS[Layer(kind)][1])
        for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True)
    ]
    classes: list[tuple[str, Rgb]] = [(entry.name, entry.rgb) for entry in recipe.class_table]
    return [*classes, ("tissue outline", _TISSUE_RGB), *shares]
