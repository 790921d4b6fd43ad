"""Owns stores on disk: one OME-Zarr group for each slide, and collections of them."""

from wsi_seg.store.cache import shared_cache
from wsi_seg.store.collection import (
    Collection,
    SlideStore,
    open_collection,
    open_image,
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
from wsi_seg.store.multiscale import Multiscale, open_multiscale
from wsi_seg.store.names import PREDICTION_LABEL as LABEL
from wsi_seg.store.pyramid import CoarserLevels, Written, fill_pyramid
from wsi_seg.store.thumbnail import read_thumbnail, thumbnail_extent
from wsi_seg.store.writer import (
    discard,
    discard_label,
    finish,
    strip_rows,
    tidy,
    write_strip,
)

__all__ = [
    "LABEL",
    "SAVED",
    "CoarserLevels",
    "Collection",
    "Draft",
    "DraftLayout",
    "LabelInfo",
    "Multiscale",
    "PredictionInfo",
    "Saved",
    "SlideStore",
    "StoreInfo",
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
    "read_thumbnail",
    "shared_cache",
    "store_digest",
    "strip_rows",
    "thumbnail_extent",
    "tidy",
    "write_strip",
    "writing",
]
