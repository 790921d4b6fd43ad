"""Owns which pictures of one slide are written: overview, PNG, OME-TIFF."""

import re

from wsi_seg.exporting.names import file_name
from wsi_seg.exporting.overview import write_overview
from wsi_seg.exporting.png import write_mask
from wsi_seg.exporting.targets import ExportTargets
from wsi_seg.exporting.tiff import write_ome_tiff
from wsi_seg.exporting.written import Written
from wsi_seg.store import Collection, Multiscale, SlideStore
from wsi_seg.store.class_view import each_class


def write_pixels(
    store: SlideStore,
    label: Multiscale,
    slides: Collection | None,
    targets: ExportTargets,
    files: Written,
) -> None:
    """Write the pictures of one slide that are asked for.

    Parameters
    ----------
    store, label
        The prediction, and the label map that was decided on.
    slides
        The slides' own stores, for overview pictures.
    targets, files
        What to write, and where it is noted.
    """
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
