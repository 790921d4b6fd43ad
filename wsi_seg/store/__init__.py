"""Owns stores on disk: an OME-Zarr group for each slide, and collections of them."""

from wsi_seg.store.cache import shared_cache
from wsi_seg.store.collection import (
    Collection,
    Predictions,
    Stores,
    open_collection,
    open_predictions,
    open_stores,
)
from wsi_seg.store.digests import store_digest
from wsi_seg.store.draft import Draft, writing
from wsi_seg.store.group import create_group, list_label, update_attributes
from wsi_seg.store.info import SAVED, LabelInfo, PredictionInfo, StoreInfo
from wsi_seg.store.layout import Layout, create_multiscale
from wsi_seg.store.multiscale import Multiscale, open_multiscale, read_thumbnail
from wsi_seg.store.pyramid import CoarserLevels, Written, fill_pyramid
from wsi_seg.store.slide_list import create_collection, update_names
from wsi_seg.store.slide_store import SlideStore, open_image
from wsi_seg.store.writer import (
    commit,
    delete,
    delete_label,
    remove_if_empty,
    strip_rows,
    write_strip,
)

__all__ = [
    "SAVED",
    "CoarserLevels",
    "Collection",
    "Draft",
    "LabelInfo",
    "Layout",
    "Multiscale",
    "PredictionInfo",
    "Predictions",
    "SlideStore",
    "StoreInfo",
    "Stores",
    "Written",
    "commit",
    "create_collection",
    "create_group",
    "create_multiscale",
    "delete",
    "delete_label",
    "fill_pyramid",
    "list_label",
    "open_collection",
    "open_image",
    "open_multiscale",
    "open_predictions",
    "open_stores",
    "read_thumbnail",
    "remove_if_empty",
    "shared_cache",
    "store_digest",
    "strip_rows",
    "update_attributes",
    "update_names",
    "write_strip",
    "writing",
]
