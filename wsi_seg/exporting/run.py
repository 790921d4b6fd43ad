"""Owns exporting a whole prediction collection: one file per slide and format."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_seg.batch import run_each
from wsi_seg.errors import StoreError
from wsi_seg.exporting.asap import write_asap
from wsi_seg.exporting.coco import write_coco
from wsi_seg.exporting.codes import class_codes
from wsi_seg.exporting.dicom import write_dicom_ann, write_dicom_seg
from wsi_seg.exporting.dicom_source import source_header
from wsi_seg.exporting.geojson import write_geojson
from wsi_seg.exporting.geoparquet import write_geoparquet
from wsi_seg.exporting.names import file_name
from wsi_seg.exporting.omezarr import write_ome_zarr
from wsi_seg.exporting.outlines import Outlines, outlines
from wsi_seg.exporting.overview import write_overview
from wsi_seg.exporting.place import Place
from wsi_seg.exporting.png import write_mask
from wsi_seg.exporting.qupath import OBJECTS, project_slides, write_qupath_project
from wsi_seg.exporting.rle import write_rle_csv
from wsi_seg.exporting.spatial import write_spatialdata
from wsi_seg.exporting.targets import ExportReport, ExportTargets
from wsi_seg.exporting.tiff import write_ome_tiff
from wsi_seg.exporting.written import Written
from wsi_seg.postprocess.objects import ObjectTable, Scale
from wsi_seg.postprocess.table import write_table
from wsi_seg.postprocess.write import decided_label
from wsi_seg.progress import Progress, Silent
from wsi_seg.store import Collection, Multiscale, Predictions, SlideStore
from wsi_seg.store.class_view import each_class

_LONGEST_SUFFIX = ".probability.ome.tif"

# Objects of fewer pixels of the prediction are specks.
_LEAST_PX = 4


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
        The slides' own stores, which overview pictures need. Where they are given, COCO has the
        names of the slides' files.
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
    OutputError
        If a file for all slides cannot be written, or is there and no export wrote it.

    Examples
    --------
    >>> from pathlib import Path
    >>> targets = ExportTargets(geojson=Path("found"))
    >>> export(open_predictions("pred.zarr"), None, targets).objects  # doctest: +SKIP
    {'slide-1': 57}
    """
    names = predictions.require_names()
    project, source = targets.qupath_project, targets.source
    in_project = {} if project is None or source is None else project_slides(project, source, names)
    shared = Written(overwrite=targets.overwrite)
    for path in (targets.rle, targets.coco):
        if path is not None:
            shared.require_free(path)

    def work(name: str) -> _Done:
        return _write_slide(predictions[name], slides, targets)

    batch = run_each(names, work, title="export", progress=progress)
    done = batch.results
    files = [str(path) for slide in done.values() for path in slide.files]
    _write_shared(predictions, done, slides, targets, shared)
    files += map(str, shared.paths)
    if project is not None and done:
        objects = {name: _project_objects(project, name) for name in done}
        classes = next(iter(done.values())).label.classes
        files += map(str, write_qupath_project(project, in_project, objects, classes))
    found = {name: slide for name, slide in done.items() if slide.objects is not None}
    return ExportReport(
        tuple(done),
        tuple(files),
        {name: slide.objects or 0 for name, slide in found.items()},
        {name: slide.left_out for name, slide in found.items()},
        {name: slide.min_area for name, slide in found.items()},
        _warnings(predictions, targets),
        failures=batch.failures,
    )


def _warnings(predictions: Predictions, targets: ExportTargets) -> tuple[str, ...]:
    warnings = [text for store in predictions if (text := store.warning) is not None]
    plain = sum(store.saved == "labels" for store in predictions)
    if plain and (targets.ome_tiff or targets.table or targets.outlined):
        warnings.append(
            f"probabilities of {plain} slides are in no file: only their class ids were saved"
        )
    warnings += [
        f"{name}: its name leaves no room for {_LONGEST_SUFFIX}; some files have a shorter name"
        for name in predictions.names()
        if file_name(name, _LONGEST_SUFFIX) != name + _LONGEST_SUFFIX
    ]
    return tuple(warnings)


@dataclass(frozen=True, slots=True)
class _Done:
    """What was written of one slide; ``objects`` are those that are large enough, if outlined."""

    label: Multiscale
    files: list[Path]
    objects: int | None
    left_out: int
    min_area: str


def _write_slide(store: SlideStore, slides: Collection | None, targets: ExportTargets) -> _Done:
    """Write one slide's own files."""
    label = decided_label(store, targets.rule)
    if label.channels is not None and targets.one_id:
        raise StoreError(
            f"slide {store.name}: its classes overlap, and {', '.join(targets.one_id)} have one id "
            "for each pixel; expected other formats, such as --geojson, --rle or --ome-tiff"
        )
    files = Written(overwrite=targets.overwrite)
    _write_pixels(store, label, slides, targets, files)
    if targets.source is not None and (targets.dicom_seg or targets.dicom_ann):
        header = source_header(targets.source, store.name)
        codes = class_codes(label.classes, targets.codes)
        if targets.dicom_seg is not None:
            image = store.probabilities if targets.probabilities else label
            with files.new(targets.dicom_seg / file_name(store.name, "")) as path:
                write_dicom_seg(path, image, header, codes)
    if not targets.numbered:
        return _Done(label, files.paths, None, 0, "")
    objects = _outlines(store, label, targets)
    if targets.source is not None and targets.dicom_ann is not None:
        with files.new(targets.dicom_ann / file_name(store.name, ".dcm")) as path:
            write_dicom_ann(path, objects, header, codes)
    _write_objects(store, objects, slides, targets, files)
    unit = "px2" if label.pyramid.mpp is None else "um2"
    least = f"{_least_area(label, targets):g} {unit}"
    count = len(objects) if targets.outlined else None
    return _Done(label, files.paths, count, len(objects.table) - len(objects), least)


def _outlines(store: SlideStore, label: Multiscale, targets: ExportTargets) -> Outlines:
    return outlines(
        label,
        None if store.saved == "labels" else store.probabilities,
        min_area_um2=_least_area(label, targets),
        simplify_um=targets.simplify_um,
        identity=_identity(store, label),
    )


def _identity(store: SlideStore, label: Multiscale) -> dict[str, object]:
    """List what decides the objects of a slide, whatever was saved of the prediction."""
    about = store.prediction
    return {
        "slide": store.name,
        "settings": dict(about.settings),
        "calibration": dict(about.calibration_tables),
        "rule": label.attributes.get("rule"),
    }


def _least_area(label: Multiscale, targets: ExportTargets) -> float:
    if targets.min_area_um2 is not None:
        return targets.min_area_um2
    return _LEAST_PX * Scale(label.downsample, label.pyramid.mpp).unit ** 2


def _write_pixels(
    store: SlideStore,
    label: Multiscale,
    slides: Collection | None,
    targets: ExportTargets,
    files: Written,
) -> None:
    """Write the pictures of one slide."""
    if targets.overview is not None and slides is not None:
        with files.new(targets.overview / file_name(store.name, ".png")) as path:
            parts = [(part, part.classes) for part in each_class(label)]
            write_overview(slides[store.name], parts, path)
    if targets.png is not None:
        for number, part in enumerate(each_class(label), 1):
            own = "" if label.channels is None else f".{number}-{_plain(part.classes.names[0])}"
            with files.new(targets.png / file_name(store.name, f"{own}.png")) as path:
                write_mask(path, part)
    if targets.ome_tiff is not None:
        images = {"labels": label}
        if store.saved != "labels":
            images = {"probability": store.probabilities, **images}
        for suffix, image in images.items():
            with files.new(targets.ome_tiff / file_name(store.name, f".{suffix}.ome.tif")) as path:
                write_ome_tiff(path, image, store.name)


def _plain(name: str) -> str:
    """Name of a class as a part of a file's name."""
    return re.sub(r"[^\w-]+", "_", name)


def _write_objects(
    store: SlideStore,
    objects: Outlines,
    slides: Collection | None,
    targets: ExportTargets,
    files: Written,
) -> None:
    """Write what has the objects of one slide."""
    name = store.name
    if targets.geojson is not None:
        packed = ".gz" if targets.packed else ""
        with files.new(targets.geojson / file_name(name, f".geojson{packed}")) as path:
            write_geojson(path, objects, kind=targets.kind)
    if targets.qupath_project is not None:
        with files.new(_project_objects(targets.qupath_project, name)) as path:
            write_geojson(path, objects, kind=targets.kind)
    if targets.geoparquet is not None:
        with files.new(targets.geoparquet / file_name(name, ".parquet")) as path:
            write_geoparquet(path, objects)
    if targets.asap is not None:
        with files.new(targets.asap / file_name(name, ".xml")) as path:
            write_asap(path, objects)
    if targets.ome_zarr is not None:
        suffix = ".ozx" if targets.zipped else ".ome.zarr"
        with files.new(targets.ome_zarr / file_name(name, suffix)) as path:
            write_ome_zarr(path, store.image, objects, name, ngff=targets.ngff)
    if targets.spatialdata is not None:
        slide = slides[name].path if slides is not None and name in slides else None
        with files.new(targets.spatialdata / file_name(name, ".zarr")) as path:
            write_spatialdata(path, objects, name, slide)
    if targets.table is not None:
        table = _placed(objects.table, objects.label)
        for suffix in ("csv", "parquet"):
            with files.new(targets.table / file_name(name, f".{suffix}")) as path:
                write_table(path, table, has_mpp=objects.label.pyramid.mpp is not None)


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


def _write_shared(
    predictions: Predictions,
    done: Mapping[str, _Done],
    slides: Collection | None,
    targets: ExportTargets,
    files: Written,
) -> None:
    """Write the files that hold all slides; objects of one slide at a time are in memory."""
    labels = {name: slide.label for name, slide in done.items()}
    if targets.rle is not None and labels:
        parts = [(name, part) for name, label in labels.items() for part in each_class(label)]
        with files.new(targets.rle) as path:
            write_rle_csv(path, parts, dialect=targets.dialect)
    if targets.coco is not None and labels:
        images = (
            (_slide_file(slides, name), _outlines(predictions[name], label, targets))
            for name, label in labels.items()
        )
        with files.new(targets.coco) as path:
            write_coco(path, images, next(iter(labels.values())).classes)


def _project_objects(project: Path, name: str) -> Path:
    return project / OBJECTS / file_name(name, ".geojson")


def _slide_file(slides: Collection | None, name: str) -> str:
    """Name of a slide's file; the slide's own name where the file is not known by it."""
    if slides is None or name not in slides:
        return name
    source = slides[name].info.source
    return source.name if source is not None and source.name.startswith(f"{name}.") else name
