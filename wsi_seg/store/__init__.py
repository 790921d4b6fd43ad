"""Owns stores on disk: one OME-Zarr group for each slide, and collections of them."""

from wsi_seg.store.cache import shared_cache
from wsi_seg.store.collection import (
    Collection,
    Predictions,
    SlideStore,
    Stores,
    open_collection,
    open_image,
    open_predictions,
)
from wsi_seg.store.digests import store_digest
from wsi_seg.store.draft import Draft, DraftLayout, writing
from wsi_seg.store.info import SAVED, LabelInfo, PredictionInfo, Saved, StoreInfo
from wsi_seg.store.layout import (
    completed,
    create_collection,
    create_group,
    create_multiscale,
    halved,
    list_label,
    note_attributes,
    note_names,
)
from wsi_seg.store.multiscale import Multiscale, open_multiscale, read_thumbnail
from wsi_seg.store.pyramid import CoarserLevels, Written, fill_pyramid
from wsi_seg.store.writer import (
    discard,
    discard_label,
    finish,
    strip_rows,
    tidy,
    write_strip,
)

__all__ = [
    "SAVED",
    "CoarserLevels",
    "Collection",
    "Draft",
    "DraftLayout",
    "LabelInfo",
    "Multiscale",
    "PredictionInfo",
    "Predictions",
    "Saved",
    "SlideStore",
    "StoreInfo",
    "Stores",
    "Written",
    "completed",
    "create_collection",
    "create_group",
    "create_multiscale",
    "discard",
    "discard_label",
    "fill_pyramid",
    "finish",
    "halved",
    "list_label",
    "note_attributes",
    "note_names",
    "open_collection",
    "open_image",
    "open_multiscale",
    "open_predictions",
    "read_thumbnail",
    "shared_cache",
    "store_digest",
    "strip_rows",
    "tidy",
    "write_strip",
    "writing",
]
