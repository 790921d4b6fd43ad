"""Segment gigapixel slides: stores, importance sampling, training, seamless inference, polygons.

Public names are loaded on first use, so that ``import wsi_seg`` is fast and imports neither torch
nor dask nor rasterio.

Examples
--------
>>> import wsi_seg
>>> wsi_seg.tile_slides(["slides/"], "store.zarr")  # doctest: +SKIP
>>> slides = wsi_seg.open_collection("store.zarr")  # doctest: +SKIP
>>> slides["slide-1"].read(mpp=1.0, centre_um=(900, 900), size_px=(512, 512))  # doctest: +SKIP
>>> wsi_seg.infer(slides, model="run/best.safetensors")  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsi_seg.annotations import Annotations, read_annotations
    from wsi_seg.classes import ClassTable
    from wsi_seg.config import Recipe, load_recipe
    from wsi_seg.errors import BatchError, WsiSegError
    from wsi_seg.evaluation.compare import evaluate
    from wsi_seg.evaluation.scores import Measures, Scores
    from wsi_seg.evaluation.search import SearchReport, search
    from wsi_seg.exporting.bioimageio import Credits
    from wsi_seg.exporting.geojson import write_geojson
    from wsi_seg.exporting.outlines import Outlines, outlines
    from wsi_seg.exporting.pack import PackReport, PackTargets, pack_model
    from wsi_seg.exporting.run import export
    from wsi_seg.exporting.targets import ExportReport, ExportTargets
    from wsi_seg.geometry import Extent, Pyramid, Region, TileGrid
    from wsi_seg.inference.array import Predictor
    from wsi_seg.inference.options import InferOptions
    from wsi_seg.inference.report import InferReport
    from wsi_seg.inference.run import infer
    from wsi_seg.inference.run_plan import RunPlan, plan_inference
    from wsi_seg.ingest.report import TileReport
    from wsi_seg.ingest.run import tile_slides
    from wsi_seg.learn.dataset import EpochDataset, make_dataset
    from wsi_seg.learn.train import TrainReport, train
    from wsi_seg.masks.annotate import annotate
    from wsi_seg.masks.annotate_report import AnnotateReport
    from wsi_seg.models import ModelCard, load_checkpoint
    from wsi_seg.postprocess.rule import Rule, read_rule
    from wsi_seg.predict.ensemble import Model, read_model
    from wsi_seg.reporting.push import PushReport, push_model
    from wsi_seg.reporting.write import ReportSources, report
    from wsi_seg.slides import Slide, open_slide
    from wsi_seg.store import (
        Collection,
        Multiscale,
        Predictions,
        SlideStore,
        open_collection,
        open_predictions,
    )
    from wsi_seg.testing.conformance import check_slide
    from wsi_seg.viewer.cell import Viewer, view


__version__ = "0.1.0"

_HOMES = {
    "AnnotateReport": "wsi_seg.masks.annotate_report",
    "Annotations": "wsi_seg.annotations",
    "BatchError": "wsi_seg.errors",
    "ClassTable": "wsi_seg.classes",
    "Collection": "wsi_seg.store",
    "Credits": "wsi_seg.exporting.bioimageio",
    "EpochDataset": "wsi_seg.learn.dataset",
    "ExportReport": "wsi_seg.exporting.targets",
    "ExportTargets": "wsi_seg.exporting.targets",
    "Extent": "wsi_seg.geometry",
    "InferOptions": "wsi_seg.inference.options",
    "InferReport": "wsi_seg.inference.report",
    "Measures": "wsi_seg.evaluation.scores",
    "Model": "wsi_seg.predict.ensemble",
    "ModelCard": "wsi_seg.models",
    "Multiscale": "wsi_seg.store",
    "Outlines": "wsi_seg.exporting.outlines",
    "PackReport": "wsi_seg.exporting.pack",
    "PackTargets": "wsi_seg.exporting.pack",
    "Predictions": "wsi_seg.store",
    "Predictor": "wsi_seg.inference.array",
    "PushReport": "wsi_seg.reporting.push",
    "Pyramid": "wsi_seg.geometry",
    "Recipe": "wsi_seg.config",
    "Region": "wsi_seg.geometry",
    "ReportSources": "wsi_seg.reporting.write",
    "Rule": "wsi_seg.postprocess.rule",
    "RunPlan": "wsi_seg.inference.run_plan",
    "Scores": "wsi_seg.evaluation.scores",
    "SearchReport": "wsi_seg.evaluation.search",
    "Slide": "wsi_seg.slides",
    "SlideStore": "wsi_seg.store",
    "TileGrid": "wsi_seg.geometry",
    "TileReport": "wsi_seg.ingest.report",
    "TrainReport": "wsi_seg.learn.train",
    "Viewer": "wsi_seg.viewer.cell",
    "WsiSegError": "wsi_seg.errors",
    "annotate": "wsi_seg.masks.annotate",
    "check_slide": "wsi_seg.testing.conformance",
    "evaluate": "wsi_seg.evaluation.compare",
    "export": "wsi_seg.exporting.run",
    "infer": "wsi_seg.inference.run",
    "load_checkpoint": "wsi_seg.models",
    "load_recipe": "wsi_seg.config",
    "make_dataset": "wsi_seg.learn.dataset",
    "open_collection": "wsi_seg.store",
    "open_predictions": "wsi_seg.store",
    "open_slide": "wsi_seg.slides",
    "outlines": "wsi_seg.exporting.outlines",
    "pack_model": "wsi_seg.exporting.pack",
    "plan_inference": "wsi_seg.inference.run_plan",
    "push_model": "wsi_seg.reporting.push",
    "read_annotations": "wsi_seg.annotations",
    "read_model": "wsi_seg.predict.ensemble",
    "read_rule": "wsi_seg.postprocess.rule",
    "report": "wsi_seg.reporting.write",
    "search": "wsi_seg.evaluation.search",
    "tile_slides": "wsi_seg.ingest.run",
    "train": "wsi_seg.learn.train",
    "view": "wsi_seg.viewer.cell",
    "write_geojson": "wsi_seg.exporting.geojson",
}

__all__ = [
    "AnnotateReport",
    "Annotations",
    "BatchError",
    "ClassTable",
    "Collection",
    "Credits",
    "EpochDataset",
    "ExportReport",
    "ExportTargets",
    "Extent",
    "InferOptions",
    "InferReport",
    "Measures",
    "Model",
    "ModelCard",
    "Multiscale",
    "Outlines",
    "PackReport",
    "PackTargets",
    "Predictions",
    "Predictor",
    "PushReport",
    "Pyramid",
    "Recipe",
    "Region",
    "ReportSources",
    "Rule",
    "RunPlan",
    "Scores",
    "SearchReport",
    "Slide",
    "SlideStore",
    "TileGrid",
    "TileReport",
    "TrainReport",
    "Viewer",
    "WsiSegError",
    "__version__",
    "annotate",
    "check_slide",
    "evaluate",
    "export",
    "infer",
    "load_checkpoint",
    "load_recipe",
    "make_dataset",
    "open_collection",
    "open_predictions",
    "open_slide",
    "outlines",
    "pack_model",
    "plan_inference",
    "push_model",
    "read_annotations",
    "read_model",
    "read_rule",
    "report",
    "search",
    "tile_slides",
    "train",
    "view",
    "write_geojson",
]


def __getattr__(name: str) -> object:
    """Load a public name from its module on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'wsi_seg' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
