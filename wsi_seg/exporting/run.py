"""Owns exporting a whole prediction collection: one file per slide and format."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import Polygon

from wsi_seg.batch import SlidesReport, run_each
from wsi_seg.choices import Dialect
from wsi_seg.classes import ClassEntry
from wsi_seg.errors import StoreError
from wsi_seg.exporting.coco import write_coco
from wsi_seg.exporting.geojson import write_geojson
from wsi_seg.exporting.names import file_name
from wsi_seg.exporting.overview import write_overview
from wsi_seg.exporting.place import Place
from wsi_seg.exporting.png import write_mask
from wsi_seg.exporting.rle import write_rle_csv
from wsi_seg.exporting.tiff import write_ome_tiff
from wsi_seg.masks.vectorize import vectorize
from wsi_seg.postprocess.objects import ObjectTable, Scale, joined_tables, measure
from wsi_seg.postprocess.rule import Rule
from wsi_seg.postprocess.strips import label_strips
from wsi_seg.postprocess.table import write_table
from wsi_seg.postprocess.write import decided_label
from wsi_seg.progress import Progress, Silent
from wsi_seg.store import Collection, Multiscale, Predictions, SlideStore
from wsi_seg.store.class_view import class_view, each_class

# Rows of a label map outlined at a time.
_STRIP_PX = 1024
_LONGEST_SUFFIX = ".probability.ome.tif"


@dataclass(frozen=True, slots=True)
class ExportTargets:
    """Where to write which format; None leaves a format out.

    Parameters
    ----------
    geojson, png, overview
        Folders for one polygon file (``.geojson.gz`` if ``packed``), one PNG of class ids, one
        overview picture per slide.
    ome_tiff
        Folder for pyramidal OME-TIFFs of the label map, and of the probabilities if they were
        saved.
    table
        Folder for object tables, as csv and parquet; probabilities are nan if none were saved.
    rle, coco
        One csv file of run-length encoded masks, one COCO file, for all slides. Runs count pixels
        of the prediction, whose size is given with them; COCO's polygons those of level 0.
    min_area_um2
        Objects smaller than this are left out of the polygons; px² of level 0 where mpp is
        unknown.
    rule
        Makes the decision that is exported, which is kept as the label ``decision``; None exports
        the label map that inference wrote, without what the model's card calls too small.
    packed
        Whether polygon files are gzipped.
    dialect
        Of the run-length encoding; see `annotations.rle`.

    Examples
    --------
    >>> targets = ExportTargets(geojson=Path("polygons"), rule=Rule(0.7, 0.4))
    """

    geojson: Path | None = None
    png: Path | None = None
    overview: Path | None = None
    ome_tiff: Path | None = None
    table: Path | None = None
    rle: Path | None = None
    coco: Path | None = None
    min_area_um2: float = 0.0
    rule: Rule | None = None
    packed: bool = False
    dialect: Dialect = "absolute"


@dataclass(frozen=True, slots=True)
class ExportReport(SlidesReport[str]):
    """What was exported.

    Parameters
    ----------
    files
        That were written.
    objects
        Number of objects, by slide.
    warnings
        Tiles that inference could not read, and probabilities it did not save.
    """

    files: tuple[str, ...]
    objects: dict[str, int]
    warnings: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Figures as sentences for people."""
        lines = [f"{slide}: {count} objects" for slide, count in self.objects.items()]
        return [*lines, *self.warnings, *(f"wrote {file}" for file in self.files)]


def export(
    predictions: Predictions,
    slides: Collection | None,
    targets: ExportTargets,
    *,
    progress: Progress = Silent(),  # noqa: B008 (has no state)
) -> ExportReport:
    """Write every prediction in the formats asked for.

    Parameters
    ----------
    predictions
        Made by inference.
    slides
        The slides' own stores, which overview pictures need.
    targets
        What to write, and where.
    progress
        Advanced by slides.

    Returns
    -------
    ExportReport
        Its `ExportReport.require_whole` raises if some slides could not be exported.

    Raises
    ------
    StoreError
        If there are no predictions.

    Examples
    --------
    >>> targets = ExportTargets(geojson=Path("polygons"))
    >>> export(open_predictions("pred.zarr"), None, targets).objects  # doctest: +SKIP
    {'slide-1': 57}
    OutputError
        If a file for all slides cannot be written.
    """
    names = predictions.require_names()

    def work(name: str) -> tuple[Multiscale, list[str], int | None]:
        label = decided_label(predictions[name], targets.rule)
        return label, *_write_slide(predictions[name], label, slides, targets)

    batch = run_each(names, work, title="export", progress=progress)
    done = batch.results
    files = [file for _, written, _ in done.values() for file in written]
    files += _write_shared([(name, label) for name, (label, _, _) in done.items()], targets)
    return ExportReport(
        tuple(done),
        tuple(files),
        {name: count for name, (_, _, count) in done.items() if count is not None},
        _warnings(predictions, targets),
        failures=batch.failures,
    )


def _warnings(predictions: Predictions, targets: ExportTargets) -> tuple[str, ...]:
    warnings = [text for store in predictions if (text := store.warning) is not None]
    plain = sum(store.saved == "labels" for store in predictions)
    if plain and (targets.ome_tiff or targets.table):
        warnings.append(
            f"probabilities of {plain} slides are in no file: only their class ids were saved"
        )
    warnings += [
        f"{name}: its name leaves no room for {_LONGEST_SUFFIX}; some files have a shorter name"
        for name in predictions.names()
        if file_name(name, _LONGEST_SUFFIX) != name + _LONGEST_SUFFIX
    ]
    return tuple(warnings)


def _write_slide(
    store: SlideStore, label: Multiscale, slides: Collection | None, targets: ExportTargets
) -> tuple[list[str], int | None]:
    """Write the files of one slide; return their names, and the number of polygons."""
    files, count, name = [], None, store.name
    if targets.geojson is not None:
        path = targets.geojson / file_name(name, f".geojson{'.gz' if targets.packed else ''}")
        count = write_geojson(path, outlines(label, targets.min_area_um2))
        files.append(path)
    if targets.overview is not None and slides is not None:
        files.append(targets.overview / file_name(name, ".png"))
        parts = [(part, part.classes) for part in each_class(label)]
        write_overview(slides[name], parts, files[-1])
    if targets.png is not None:
        if label.channels is not None:
            raise StoreError(
                f"slide {name}: a PNG has one id for each pixel, and its classes overlap; expected "
                "another format, such as --geojson, --rle or --ome-tiff"
            )
        files.append(targets.png / file_name(name, ".png"))
        write_mask(files[-1], label)
    if targets.ome_tiff is not None:
        images = {"labels": label}
        if store.saved != "labels":
            images = {"probability": store.probabilities, **images}
        for suffix, image in images.items():
            files.append(targets.ome_tiff / file_name(name, f".{suffix}.ome.tif"))
            write_ome_tiff(files[-1], image)
    if targets.table is not None:
        table = _measured(store, label)
        for suffix in ("csv", "parquet"):
            files.append(targets.table / file_name(name, f".{suffix}"))
            write_table(files[-1], table, has_mpp=label.pyramid.mpp is not None)
    return [str(path) for path in files], count


def _measured(store: SlideStore, label: Multiscale) -> ObjectTable:
    """Objects of a label map of a prediction; see `ExportTargets.table`."""
    if label.channels is None:
        return _measured_label(store, label)
    views = (class_view(store, entry) for entry in label.classes)
    parts = zip(views, each_class(label), strict=True)
    return joined_tables([_measured_label(view, part) for view, part in parts])


def _measured_label(store: SlideStore, label: Multiscale) -> ObjectTable:
    """Objects of classes of which a pixel has one."""
    classes, scale = label.classes, Scale(label.downsample, label.pyramid.mpp)
    if store.saved != "labels":
        return _placed(measure(label_strips(label, store.probabilities), classes, scale), label)
    table = _placed(measure(label_strips(label), classes, scale), label)
    unknown = np.full(len(table), np.nan)
    return replace(table, mean_probability=unknown, max_probability=unknown)


def _placed(table: ObjectTable, label: Multiscale) -> ObjectTable:
    """Objects at the places that their outlines have, which end where the slide does."""
    place, scale = Place.of(label), label.downsample
    tall, wide = place.tall / scale, place.wide / scale
    return replace(
        table,
        y=table.y * tall,
        top=table.top * tall,
        bottom=table.bottom * tall,
        x=table.x * wide,
        left=table.left * wide,
        right=table.right * wide,
    )


def _write_shared(labels: list[tuple[str, Multiscale]], targets: ExportTargets) -> list[str]:
    """Write the files that hold all slides."""
    files = []
    if targets.rle is not None and labels:
        parts = [(name, part) for name, label in labels for part in each_class(label)]
        write_rle_csv(targets.rle, parts, dialect=targets.dialect)
        files.append(str(targets.rle))
    if targets.coco is not None and labels:
        images = (
            (name, Place.of(label).extent, outlines(label, targets.min_area_um2))
            for name, label in labels
        )
        write_coco(targets.coco, images, labels[0][1].classes)
        files.append(str(targets.coco))
    return files


def outlines(label: Multiscale, min_area_um2: float = 0.0) -> Iterator[tuple[ClassEntry, Polygon]]:
    """Outline the objects of a prediction, in level-0 pixels of the slide.

    Parameters
    ----------
    label
        Label map of one slide; with planes, one class comes after the other.
    min_area_um2
        Smaller objects are left out; px² of level 0 where mpp is unknown.

    Yields
    ------
    ClassEntry, Polygon
        Class and outline, ``(x, y)``.

    Examples
    --------
    >>> label = open_predictions("pred.zarr")["slide-1"].label("prediction")  # doctest: +SKIP
    >>> write_geojson("slide-1.geojson", outlines(label, 50.0))  # doctest: +SKIP
    57
    """
    entries = {entry.name: entry for entry in label.classes}
    place, scale = Place.of(label), label.downsample
    mpp = None if label.pyramid.mpp is None else label.pyramid.mpp / scale
    for part in each_class(label):
        names = part.classes.names
        for value, polygon in vectorize(_strips(part)):
            scaled = place.on_slide(polygon)
            if scaled.area * (1.0 if mpp is None else mpp**2) >= min_area_um2:
                yield entries[names[value - 1]], scaled


def _strips(label: Multiscale) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    for strip in label.pyramid.extent.strips(_STRIP_PX):
        yield strip.y, label.read(strip)
