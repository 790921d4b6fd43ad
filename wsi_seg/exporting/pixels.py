"""Owns writing the raster exports of one slide: overview, PNG, OME-TIFF."""

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
    """Write the requested raster files of one slide.

    Parameters
    ----------
    store, label
        The prediction, and the label map of its decision.
    slides
        Stores of the slides, for overview pictures.
    targets, files
        Formats to write, and the record of written files.
    """
    if targets.overview is not None and slides is not None:
        with files.new(targets.overview / file_name(store.name, ".png")) as path:
            parts = [(part, part.classes) for part in each_class(label)]
            write_overview(slides[store.name], parts, path)
    if targets.png is not None:
        for number, part in enumerate(each_class(label), 1):
            suffix = "" if label.channels is None else f".{number}-{_plain(part.classes.names[0])}"
            with files.new(targets.png / file_name(store.name, f"{suffix}.png")) as path:
                write_mask(path, part)
    if targets.ome_tiff is not None:
        images = {"labels": label}
        if store.saved != "labels":
            images = {"probability": store.probabilities, **images}
        for suffix, image in images.items():
            with files.new(targets.ome_tiff / file_name(store.name, f".{suffix}.ome.tif")) as path:
                write_ome_tiff(path, image, store.name)


def _plain(name: str) -> str:
    """Make the name of a class safe for file names."""
    return re.sub(r"[^\w-]+", "_", name)
