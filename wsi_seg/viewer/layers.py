"""Owns the layers of one slide, and the pixels of each layer's tiles.

Raw values are sent as PNG and coloured in the browser, so that thresholds and colour maps change
without further requests.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsi_seg.classes import IGNORE, ClassTable
from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent, Region
from wsi_seg.postprocess.label_map import predicted_label, predicted_planes
from wsi_seg.reading.resample import read_label
from wsi_seg.store import Multiscale, SlideStore
from wsi_seg.store.class_view import class_views, each_class, plane_of
from wsi_seg.store.names import PREDICTION_LABEL, TISSUE
from wsi_seg.viewer.coverage import coverage_reader
from wsi_seg.viewer.importance import importance_reader
from wsi_seg.viewer.tiles import Tile, encode_png, image_tile, level_array, tile_region, tile_size

logger = logging.getLogger(__name__)

Kind = Literal["image", "probability", "errors", "classes", "values", "coverage"]
Pixels = NDArray[np.uint8]

_FOUND: Mapping[str, tuple[str, Literal["found", "true"]]] = {
    PREDICTION_LABEL: ("Class map of the prediction", "found")
}

# Value of ignored pixels in the truth channel of error tiles; 0 is background, 255 is the class.
_IGNORED = 128


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One layer of the viewer, and the pyramid in which it is served.

    Parameters
    ----------
    id
        Identifier in requests.
    title
        Title in the page.
    kind
        ``image`` is RGB; ``probability`` is value / 255; ``errors`` is a probability and, in a
        second channel, the truth; ``classes`` are class ids; ``values`` are other values;
        ``coverage`` are the densities of `coverage_reader`.
    source
        Image whose levels and tile grid the layer has.
    classes
        Classes of the ids, or the one class of a probability.
    read
        Reads the uint8 pixels ``(H, W)`` or ``(H, W, 3)`` of a region of one level.
    status
        Whether class ids are a prediction (``found``) or the truth (``true``); None otherwise.
    """

    id: str
    title: str
    kind: Kind
    source: Multiscale
    classes: ClassTable
    read: Callable[[Region], Pixels]
    status: Literal["found", "true"] | None = None

    def tile(self, level: int, row: int, column: int) -> Tile:
        """Encode one tile.

        Raises
        ------
        RegionError
            If there is no such level or tile.
        StoreError
            If the store was removed, or the tile is damaged.
        """
        if self.kind == "image":
            return image_tile(self.source, level, row, column)
        array = level_array(self.source, level)
        return encode_png(self.read(tile_region(array, level, row, column)))

    def value(self, y: float, x: float) -> int | None:
        """Return the value at a position, given as fractions of height and width.

        It is None except for probabilities and class ids.
        """
        if self.kind not in ("probability", "classes"):
            return None
        level_array(self.source, 0)
        extent = self.source.pyramid.extent
        row = min(int(y * extent.height), extent.height - 1)
        column = min(int(x * extent.width), extent.width - 1)
        return int(self.read(Region(level=0, y=row, x=column, height=1, width=1))[0, 0])

    def to_json(self) -> dict[str, object]:
        """Describe the layer to the page."""
        return {
            "id": self.id,
            "title": self.title,
            "kind": self.kind,
            "status": self.status,
            "classes": [
                {"id": entry.id, "name": entry.name, "colour": entry.colour}
                for entry in self.classes
            ],
            "version": "-".join(f"{part:x}" for part in self.source.arrays[0].version),
            "levels": [
                {
                    "height": array.extent.height,
                    "width": array.extent.width,
                    "tileHeight": tile_size(array).height,
                    "tileWidth": tile_size(array).width,
                }
                for array in self.source.arrays
            ],
        }


def slide_layers(slide: SlideStore, found: SlideStore | None, truth: str) -> dict[str, Layer]:
    """List all layers of a slide by id, the image first.

    Parameters
    ----------
    slide
        Store of the slide.
    found
        Its prediction, if there is one.
    truth
        Name of the ground-truth label.
    """
    layers = [Layer("image", "Slide", "image", slide.image, ClassTable(()), slide.image.read)]
    labels = slide.label_names()
    true = slide.planes(truth) if truth in labels else None
    if found is not None:
        layers += _prediction_layers(found, true)
    layers += _label_layers(slide, "label", {truth: ("Class map of the truth", "true")})
    if TISSUE in labels:
        tissue, none = slide.label(TISSUE), ClassTable(())
        read = importance_reader(slide, tissue, truth if truth in labels else None)
        layers.append(Layer("importance", "Sampling density", "values", tissue, none, read))
    if (coverage := _coverage(found, true)) is not None:
        layers.append(coverage)
    return {layer.id: layer for layer in layers}


def _coverage(found: SlideStore | None, true: Multiscale | None) -> Layer | None:
    """Make the density layer of the prediction, or of the truth if there is no prediction."""
    if found is not None:
        views = class_views(found)
        pairs = [(predicted_label(view), _truth_of(view.image.classes, true)) for view in views]
    else:
        pairs = [(part, None) for part in each_class(true)] if true is not None else []
    if not pairs:
        return None
    read = coverage_reader(pairs)
    return Layer("coverage", "Density of objects", "coverage", pairs[0][0], ClassTable(()), read)


def _truth_of(classes: ClassTable, true: Multiscale | None) -> Multiscale | None:
    """Return the truth to compare with a prediction of these classes, if there is any."""
    if true is None or true.channels is None:
        return true
    known = [entry for entry in classes if entry.name in true.classes.names]
    return plane_of(true, known[0]) if len(classes) == len(known) == 1 else None


def _prediction_layers(found: SlideStore, true: Multiscale | None) -> list[Layer]:
    """Make the layers of a prediction: probabilities if they were saved, errors, and labels."""
    layers: list[Layer] = []
    every = [(view, entry) for view in class_views(found) for entry in view.image.classes]
    for number, (view, entry) in enumerate(every):
        image, classes = view.image, view.image.classes
        only = ClassTable.named([entry.name], [entry.colour])
        if found.saved == "labels":
            read = _class_reader(image, entry.id)
        else:
            read = _channel_reader(image, entry.id - 1)
            title = f"{entry.name}: probability"
            layers.append(Layer(f"probability-{number}", title, "probability", image, only, read))
        if true is None or (true.channels is not None and entry.name not in true.classes.names):
            continue
        own = plane_of(true, entry)
        # Class of the prediction that each id of the truth maps to; several may map to the same.
        recoding = classes.recoding(own.classes)
        if entry.id in recoding:
            both = _error_reader(read, own, recoding == entry.id, image)
            title = f"{entry.name}: errors"
            layers.append(Layer(f"errors-{number}", title, "errors", image, only, both))
    return layers + _label_layers(found, "found", _FOUND)


def _label_layers(
    store: SlideStore, prefix: str, named: Mapping[str, tuple[str, Literal["found", "true"]]]
) -> list[Layer]:
    """Make the layers of a store's labels, one per class if classes overlap.

    Damaged labels are skipped. Labels without classes hold values.
    """
    layers = []
    computed = {PREDICTION_LABEL} if store.saved == "probabilities" else set()
    for name in sorted({*store.label_names(), *computed}):
        try:
            whole = predicted_planes(store, name)
            whole.read_levels()
        except StoreError as error:
            logger.warning("label %s of %s is skipped: %s", name, store.name, error)
            continue
        kind: Kind = "classes" if "classes" in whole.attributes else "values"
        title, status = named.get(name, (name.replace("_", " ").capitalize(), None))
        for number, label in enumerate(each_class(whole)):
            classes = label.classes if kind == "classes" else ClassTable(())
            own, more = f"{prefix}-{name}", ""
            if whole.channels is not None:
                own, more = f"{own}-{number}", f", {classes.names[0]}"
            layers.append(Layer(own, title + more, kind, label, classes, label.read, status))
    return layers


def _channel_reader(image: Multiscale, channel: int) -> Callable[[Region], Pixels]:
    return lambda region: image.read(region)[:, :, channel]


def _class_reader(image: Multiscale, class_id: int) -> Callable[[Region], Pixels]:
    return lambda region: np.where(image.read(region) == class_id, 255, 0).astype(np.uint8)


def _error_reader(
    probability: Callable[[Region], Pixels],
    true: Multiscale,
    is_class: NDArray[np.bool_],
    image: Multiscale,
) -> Callable[[Region], Pixels]:
    """Make a reader of probability and truth, as RGB; ``is_class`` selects ids of the truth."""
    table = np.where(is_class, 255, 0).astype(np.uint8)
    table[IGNORE] = _IGNORED

    def read(region: Region) -> Pixels:
        extent: Extent = image.pyramid.extents[region.level]
        ids = read_label(true, extent, region.y, region.x, height=region.height, width=region.width)
        pixels = np.zeros((region.height, region.width, 3), dtype=np.uint8)
        pixels[:, :, 0] = probability(region)
        pixels[:, :, 1] = table[ids]
        return pixels

    return read
