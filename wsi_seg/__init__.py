"""Segment gigapixel slides: stores, importance sampling, training, seamless inference, polygons.

Public names are loaded on first use, so ``import wsi_seg`` costs next to nothing and imports
neither torch nor dask nor rasterio.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsi_seg.annotations import read_annotations
    from wsi_seg.classes import ClassTable
    from wsi_seg.config import load_recipe
    from wsi_seg.errors import WsiSegError
    from wsi_seg.evaluate.compare import evaluate_collection
    from wsi_seg.geometry import Extent, Pyramid, Region, TileGrid
    from wsi_seg.infer.plan import InferOptions, plan_slide
    from wsi_seg.infer.run import infer_collection
    from wsi_seg.learn.train import train
    from wsi_seg.models.checkpoint import load_checkpoint
    from wsi_seg.slides import open_slide
    from wsi_seg.store import open_collection, open_predictions

__version__ = "0.1.0"

_HOMES = {
    "ClassTable": "wsi_seg.classes",
    "Extent": "wsi_seg.geometry",
    "InferOptions": "wsi_seg.infer.plan",
    "Pyramid": "wsi_seg.geometry",
    "Region": "wsi_seg.geometry",
    "TileGrid": "wsi_seg.geometry",
    "WsiSegError": "wsi_seg.errors",
    "evaluate_collection": "wsi_seg.evaluate.compare",
    "infer_collection": "wsi_seg.infer.run",
    "load_checkpoint": "wsi_seg.models.checkpoint",
    "load_recipe": "wsi_seg.config",
    "open_collection": "wsi_seg.store",
    "open_predictions": "wsi_seg.store",
    "open_slide": "wsi_seg.slides",
    "plan_slide": "wsi_seg.infer.plan",
    "read_annotations": "wsi_seg.annotations",
    "train": "wsi_seg.learn.train",
}

__all__ = [
    "ClassTable",
    "Extent",
    "InferOptions",
    "Pyramid",
    "Region",
    "TileGrid",
    "WsiSegError",
    "__version__",
    "evaluate_collection",
    "infer_collection",
    "load_checkpoint",
    "load_recipe",
    "open_collection",
    "open_predictions",
    "open_slide",
    "plan_slide",
    "read_annotations",
    "train",
]


def __getattr__(name: str) -> object:
    """Load a public name from its home on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'wsi_seg' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
