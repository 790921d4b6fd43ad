"""Owns exporting a collection of predictions to all requested formats."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from wsi_seg.batch import Batch, run_each
from wsi_seg.counts import counted
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
from wsi_seg.exporting.pixels import write_pixels
from wsi_seg.exporting.place import Place
from wsi_seg.exporting.qupath import OBJECTS, PROJECT, project_slides, write_qupath_project
from wsi_seg.exporting.rle import write_rle_csv
from wsi_seg.exporting.spatial import write_spatialdata
from wsi_seg.exporting.targets import ExportReport, ExportTargets
from wsi_seg.exporting.written import Written, is_as_written, record_of
from wsi_seg.files.half_written import remove_partials
from wsi_seg.masks.inside import Inside
from wsi_seg.postprocess.objects import ObjectTable, Scale
from wsi_seg.postprocess.table import write_table
from wsi_seg.postprocess.write import decided_label
from wsi_seg.progress import Progress, Silent
from wsi_seg.shard import Shard
from wsi_seg.store import Collection, Multiscale, Predictions, SlideStore, store_digest
from wsi_seg.store.class_view import each_class
from wsi_seg.store.names import LABELS, PREDICTION_LABEL
from wsi_seg.store.turns import areas, taking_turns

_LONGEST_SUFFIX = ".probability.ome.tif"

# Default minimum area of objects, in pixels of the prediction.
_LEAST_PX = 4


def export(
    predictions: Predictions,
    slides: Collection | None,
    targets: ExportTargets,
    *,
    shard: Shard | None = None,
    progress: Progress = Silent(),  # noqa: B008 (has no state)
) -> ExportReport:
    """Write every prediction in the requested formats.

    Several processes may export one collection, each with its own ``shard``; the last one to finish
    writes the files that cover all slides.

    Parameters
    ----------
    predictions
        Predictions of inference.
    slides
        Stores of the slides, which overview pictures need. If given, COCO uses the file names of
        the slides.
    targets
        Formats and paths to write.
    shard
        Share of the slides that this process exports, balanced by their sizes; it then takes over
        the slides of processes that were killed. None exports all slides.
    progress
        Advanced by slides.

    Returns
    -------
    ExportReport
        `ExportReport.require_whole` raises if a slide could not be exported.

    Raises
    ------
    StoreError
        If there are no predictions.
    OutputError
        If a file of all slides cannot be written, or would overwrite a file that was not written
        by an export.

    Examples
    --------
    >>> from pathlib import Path
    >>> targets = ExportTargets(geojson=Path("found"))
    >>> export(open_predictions("pred.zarr"), None, targets).objects  # doctest: +SKIP
    {'slide-1': 57}
    """
    names = predictions.require_names()
    project = targets.qupath_project
    # With shards, another process may have written the project; the last one checks.
    in_project = _project_slides(targets, names) if shard is None else {}
    shared = Written(overwrite=targets.overwrite)
    for path in (targets.rle, targets.coco):
        if path is not None:
            shared.require_free(path)

    def work(name: str) -> _Done:
        return _write_slide(predictions[name], slides, targets)

    def write_shared(done: Mapping[str, _Done]) -> list[Path]:
        _write_shared(predictions, done, slides, targets, shared)
        written = list(shared.paths)
        if project is not None and done:
            objects = {name: _project_objects(project, name) for name in done}
            classes = next(iter(done.values())).label.classes
            files = in_project or _project_slides(targets, names)
            written += write_qupath_project(project, files, objects, classes)
        return written

    if shard is None:
        batch = run_each(names, work, title="export", progress=progress)
        of_all = write_shared(batch.results)
    else:
        batch, of_all = _share(predictions, slides, targets, work, write_shared, shard, progress)
    done = batch.results
    of_slides = [path for slide in done.values() for path in slide.files]
    written = [*of_slides, *of_all]
    remove_partials([*written, *map(record_of, written)])
    found = {name: slide for name, slide in done.items() if slide.objects is not None}
    return ExportReport(
        tuple(done),
        tuple(map(str, written)),
        {name: slide.objects or 0 for name, slide in found.items()},
        {name: slide.left_out for name, slide in found.items()},
        {name: slide.min_area for name, slide in found.items()},
        _warnings(predictions.only(done), targets),
        len(names) - len(done) - len(batch.failures),
        failures=batch.failures,
    )


def _share(
    predictions: Predictions,
    slides: Collection | None,
    targets: ExportTargets,
    work: Callable[[str], "_Done"],
    write_shared: Callable[[Mapping[str, "_Done"]], list[Path]],
    shard: Shard,
    progress: Progress,
) -> tuple[Batch["_Done"], list[Path]]:
    """Export a share of the predictions; the last process also writes the files of all slides."""

    def digests(name: str) -> list[str]:
        path = predictions.path / name
        return [store_digest(path), store_digest(path / LABELS / PREDICTION_LABEL)]

    def to_json(done: _Done) -> object:
        figures = done.objects, done.left_out, done.min_area
        files = list(map(str, done.files))
        return {"digests": digests(done.name), "files": files, "figures": figures}

    def of_json(name: str, kept: object) -> _Done:
        assert isinstance(kept, dict)
        label = _decided(predictions[name], slides, targets)
        return _Done(name, label, list(map(Path, kept["files"])), *kept["figures"])

    def is_current(name: str, kept: object) -> bool:
        return (
            isinstance(kept, dict)
            and kept["digests"] == digests(name)
            and all(is_as_written(Path(path)) for path in kept["files"])
        )

    project = targets.qupath_project
    of_all = [targets.rle, targets.coco, None if project is None else project / PROJECT]
    with taking_turns(
        predictions.path,
        "export",
        shard,
        areas(predictions),
        options={"targets": asdict(targets)},
        is_current=is_current,
        progress=progress,
    ) as turns:
        batch = turns.run(work, to_json, title="export")
        with turns.end(lambda: all(path is None or path.exists() for path in of_all)) as last:
            if last:
                batch = turns.all(of_json)
            return batch, write_shared(batch.results) if last else []


def _warnings(predictions: Predictions, targets: ExportTargets) -> tuple[str, ...]:
    warnings = [text for store in predictions if (text := store.warning) is not None]
    plain = sum(store.saved == "labels" for store in predictions)
    if plain and (targets.ome_tiff or targets.table or targets.outlined):
        warnings.append(
            f"probabilities of {counted(plain, 'slide')} were not exported: only class "
            "ids were saved"
        )
    warnings += [
        f"{name}: its name is too long for {_LONGEST_SUFFIX}; some files have a shortened name"
        for name in predictions.names()
        if file_name(name, _LONGEST_SUFFIX) != name + _LONGEST_SUFFIX
    ]
    return tuple(warnings)


@dataclass(frozen=True, slots=True)
class _Done:
    """Files of one slide; ``objects`` counts those that are large enough, None if not outlined."""

    name: str
    label: Multiscale
    files: list[Path]
    objects: int | None
    left_out: int
    min_area: str


def _write_slide(store: SlideStore, slides: Collection | None, targets: ExportTargets) -> _Done:
    """Write the files of one slide."""
    label = _decided(store, slides, targets)
    store = replace(store, image=_inside(store.image, store, slides, targets))
    if label.channels is not None and targets.one_id:
        raise StoreError(
            f"slide {store.name}: its classes overlap, but {', '.join(targets.one_id)} hold one id "
            "per pixel; expected other formats, such as --geojson, --rle or --ome-tiff"
        )
    files = Written(overwrite=targets.overwrite)
    write_pixels(store, label, slides, targets, files)
    if targets.source is not None and (targets.dicom_seg or targets.dicom_ann):
        header = source_header(targets.source, store.name)
        codes = class_codes(label.classes, targets.codes)
        if targets.dicom_seg is not None:
            image = store.probabilities if targets.probabilities else label
            with files.new(targets.dicom_seg / file_name(store.name, "")) as path:
                write_dicom_seg(path, image, header, codes)
    if not targets.numbered:
        return _Done(store.name, label, files.paths, None, 0, "")
    objects = _outlines(store, label, targets)
    if targets.source is not None and targets.dicom_ann is not None:
        with files.new(targets.dicom_ann / file_name(store.name, ".dcm")) as path:
            write_dicom_ann(path, objects, header, codes)
    _write_objects(store, objects, slides, targets, files)
    unit = "px2" if label.pyramid.mpp is None else "um2"
    least = f"{_least_area(label, targets):.3g} {unit}"
    count = len(objects) if targets.outlined else None
    small = len(objects.table) - len(objects)
    return _Done(store.name, label, files.paths, count, small, least)


def _decided(store: SlideStore, slides: Collection | None, targets: ExportTargets) -> Multiscale:
    """Return the label map to export, with 0 outside of the requested part."""
    return _inside(decided_label(store, targets.rule), store, slides, targets)


def _inside(
    image: Multiscale, store: SlideStore, slides: Collection | None, targets: ExportTargets
) -> Multiscale:
    if targets.inside is None:
        return image
    slide = slides[store.name] if slides is not None and store.name in slides else None
    return targets.inside.alone(image, slide, Place.of(store.image).extent)


def _outlines(store: SlideStore, label: Multiscale, targets: ExportTargets) -> Outlines:
    return outlines(
        label,
        None if store.saved == "labels" else store.probabilities,
        min_area_um2=_least_area(label, targets),
        simplify_um=targets.simplify_um,
        identity=_identity(store, label, targets.inside),
    )


def _identity(store: SlideStore, label: Multiscale, inside: Inside | None) -> dict[str, object]:
    """List what determines the objects of a slide, independently of the saved arrays."""
    about = store.prediction
    return {
        "slide": store.name,
        "settings": dict(about.settings),
        "calibration": dict(about.calibration_tables),
        "rule": label.attributes.get("rule"),
        **({} if inside is None else {"inside": inside.description}),
    }


def _least_area(label: Multiscale, targets: ExportTargets) -> float:
    if targets.min_area_um2 is not None:
        return targets.min_area_um2
    return _LEAST_PX * Scale(label.downsample, label.pyramid.mpp).unit ** 2


def _write_objects(
    store: SlideStore,
    objects: Outlines,
    slides: Collection | None,
    targets: ExportTargets,
    files: Written,
) -> None:
    """Write the formats that contain the objects of one slide."""
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
    """Scale the coordinates of objects exactly as those of their outlines."""
    place, scale = Place.of(label), label.downsample
    by_y, by_x = place.scale_y / scale, place.scale_x / scale
    return replace(
        table,
        y=table.y * by_y,
        top=table.top * by_y,
        bottom=table.bottom * by_y,
        x=table.x * by_x,
        left=table.left * by_x,
        right=table.right * by_x,
    )


def _write_shared(
    predictions: Predictions,
    done: Mapping[str, _Done],
    slides: Collection | None,
    targets: ExportTargets,
    files: Written,
) -> None:
    """Write the files of all slides; memory holds the objects of one slide at a time."""
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


def _project_slides(targets: ExportTargets, names: Sequence[str]) -> dict[str, Path]:
    """Find the files of the slides, if a QuPath project was requested."""
    if targets.qupath_project is None or targets.source is None:
        return {}
    return project_slides(targets.qupath_project, targets.source, names)


def _project_objects(project: Path, name: str) -> Path:
    return project / OBJECTS / file_name(name, ".geojson")


def _slide_file(slides: Collection | None, name: str) -> str:
    """Return the file name of a slide; the slide's own name if it does not match its source."""
    if slides is None or name not in slides:
        return name
    source = slides[name].info.source
    return source.name if source is not None and source.name.startswith(f"{name}.") else name
