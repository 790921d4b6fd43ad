"""Owns ``wsi-seg export``."""

import os
from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.choices import Dialect, Ngff, ObjectType
from wsi_seg.cli.console import JsonFlag, Terminal, run_verb
from wsi_seg.cli.options import (
    BoxOption,
    InsideOption,
    OnlyOption,
    ShardOption,
    inside_of,
    only_some,
    shard_of,
)
from wsi_seg.cli.rules import (
    RuleOption,
    ThresholdOption,
    WatershedOption,
    chosen_rule,
    rule_file,
)


def _target(text: str) -> typer.models.OptionInfo:
    """Make the option for the path of a format."""
    option: typer.models.OptionInfo = typer.Option(help=text, show_default="not written")
    return option


def export(
    prediction: Annotated[Path, typer.Argument(help="Collection made by `wsi-seg infer`.")] = Path(
        "pred.zarr"
    ),
    slides: Annotated[
        Path,
        typer.Option(help="Collection of the slides, for overview pictures and file names."),
    ] = Path("store.zarr"),
    geojson: Annotated[Path | None, _target("Folder for outlines, for QuPath.")] = None,
    qupath_project: Annotated[
        Path | None,
        _target(
            "Folder for a QuPath project of the slides of --source; run its script `import "
            "objects` in QuPath to add the objects."
        ),
    ] = None,
    geoparquet: Annotated[
        Path | None, _target("Folder for outlines and measurements, for geopandas, R and DuckDB.")
    ] = None,
    asap: Annotated[Path | None, _target("Folder for outlines as XML, for ASAP.")] = None,
    coco: Annotated[
        Path | None, _target("COCO file of the objects of all slides, with scores.")
    ] = None,
    table: Annotated[Path | None, _target("Folder for tables, as csv and parquet.")] = None,
    png: Annotated[Path | None, _target("Folder for one PNG of class ids per slide.")] = None,
    overview: Annotated[
        Path | None, _target("Folder for one picture with outlines per slide.")
    ] = None,
    ome_tiff: Annotated[
        Path | None,
        _target("Folder for OME-TIFFs of class ids, and of probabilities if they were saved."),
    ] = None,
    ome_zarr: Annotated[
        Path | None,
        _target("Folder for one OME-Zarr per slide: probabilities, classes and numbered objects."),
    ] = None,
    spatialdata: Annotated[
        Path | None, _target("Folder for one SpatialData store per slide, for scanpy and squidpy.")
    ] = None,
    dicom_seg: Annotated[
        Path | None, _target("Folder for DICOM segmentations, one pyramid per slide.")
    ] = None,
    dicom_ann: Annotated[
        Path | None, _target("Folder for DICOM annotations of outlines, one file per slide.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the source slides.",
            show_default="required for DICOM and QuPath projects only",
        ),
    ] = None,
    codes: Annotated[
        Path | None,
        typer.Option(
            help="YAML file of DICOM codes of classes.", show_default="SNOMED CT, by class name"
        ),
    ] = None,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities", help="Write probabilities to --dicom-seg instead of class ids."
        ),
    ] = False,
    rle: Annotated[
        Path | None, _target("csv file of run-length encoded masks of all slides.")
    ] = None,
    dialect: Annotated[
        Dialect,
        typer.Option(
            help="Whether runs of --rle start relative to the previous run, or at absolute pixels."
        ),
    ] = "absolute",
    ngff: Annotated[
        Ngff, typer.Option(help="OME-Zarr version; QuPath and ImageJ read 0.4.")
    ] = "0.5",
    zipped: Annotated[
        bool, typer.Option("--ozx", help="Write each OME-Zarr as a single zip file (RFC 9).")
    ] = False,
    kind: Annotated[
        ObjectType,
        typer.Option("--as", help="Object type in QuPath; auto: detections above 1,000 per slide."),
    ] = "auto",
    packed: Annotated[bool, typer.Option("--gz", help="Compress GeoJSON with gzip.")] = False,
    simplify: Annotated[
        float | None,
        typer.Option(
            help="How far outlines may move in um (pixels if mpp is unknown), up to half a pixel "
            "of the prediction; 0 keeps pixel borders.",
            show_default="half a pixel of the prediction",
        ),
    ] = None,
    min_area_um2: Annotated[
        float | None,
        typer.Option(
            help="Skip objects smaller than this many um2 (pixels if mpp is unknown).",
            show_default="4 pixels of the prediction",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace files that were not written by export, or that were changed since.",
        ),
    ] = False,
    rule: RuleOption = None,
    threshold: ThresholdOption = None,
    watershed_depth: WatershedOption = 0.0,
    only: OnlyOption = None,
    inside: InsideOption = None,
    bbox: BoxOption = None,
    shard: ShardOption = None,
    json_mode: JsonFlag = False,
) -> None:
    """Write predictions in formats of other programs.

    Files of earlier exports are replaced. A file that was not written by export, or was changed
    since, is kept and is an error for its slide. Several processes may export one collection: see
    --shard.

    For example:

      wsi-seg export pred.zarr --geojson found/
      wsi-seg export pred.zarr --qupath-project project/ --source slides/
      wsi-seg export pred.zarr --slides store.zarr --overview overviews/
      wsi-seg export pred.zarr --rule run/rule.json --table tables/ --rle out.csv
      wsi-seg export pred.zarr --watershed-depth 0.75 --coco objects.json
      wsi-seg export pred.zarr --ome-zarr zarr/ --ngff 0.4
      wsi-seg export pred.zarr --dicom-seg seg/ --dicom-ann ann/ --source slides/
      wsi-seg export pred.zarr --geojson found/ --shard 3/16
      wsi-seg export pred.zarr --geojson found/ --bbox 2000,1000,512,512
    """
    share = shard_of(shard)
    paths = {
        "geojson": geojson, "qupath_project": qupath_project, "geoparquet": geoparquet,
        "asap": asap, "coco": coco, "table": table, "png": png,
        "overview": overview, "ome_tiff": ome_tiff, "ome_zarr": ome_zarr,
        "spatialdata": spatialdata, "dicom_seg": dicom_seg, "dicom_ann": dicom_ann, "rle": rle,
    }  # fmt: skip
    if not any(paths.values()):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in paths)
        raise typer.BadParameter(f"got no format; expected at least one of {options}")

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.exporting.run import export as run_export
        from wsi_seg.exporting.targets import ExportTargets
        from wsi_seg.files.object_path import place
        from wsi_seg.store import open_collection, open_predictions

        chosen = chosen_rule(terminal, rule_file(rule, threshold), threshold, watershed_depth)
        report = run_export(
            only_some(open_predictions(prediction), only),
            open_collection(slides) if overview or place(slides).exists() else None,
            ExportTargets(
                geojson=geojson,
                qupath_project=qupath_project,
                geoparquet=geoparquet,
                asap=asap,
                table=table,
                coco=coco,
                png=png,
                overview=overview,
                ome_tiff=ome_tiff,
                ome_zarr=ome_zarr,
                spatialdata=spatialdata,
                dicom_seg=dicom_seg,
                dicom_ann=dicom_ann,
                source=source,
                codes=codes,
                probabilities=probabilities,
                rle=rle,
                kind=kind,
                min_area_um2=min_area_um2,
                simplify_um=simplify,
                rule=chosen,
                packed=packed,
                dialect=dialect,
                ngff=ngff,
                zipped=zipped,
                overwrite=overwrite,
                inside=inside_of(inside, bbox),
            ),
            shard=share,
            progress=terminal.progress,
        )
        terminal.show(report)
        report.require_whole()
        terminal.next_command("wsi-seg", "view", slides, prediction)
        return report.to_json()

    # A folder that can only be read needs no lock; processes with a share use a shared one.
    is_read_only = prediction.is_dir() and not os.access(prediction, os.W_OK)
    writes = None if is_read_only or share is not None else prediction
    run_verb(body, json_mode, writes=writes)
