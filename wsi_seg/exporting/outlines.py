"""Owns the objects of one slide as exports need them: batches of outlines and measurements."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import batched

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon

from wsi_seg.classes import IGNORE, ClassEntry, ClassTable
from wsi_seg.cores import available_cores
from wsi_seg.errors import OutputError
from wsi_seg.exporting.place import Place
from wsi_seg.exporting.simplify import MAX_PX, MIN_PX, Nodes, simplify
from wsi_seg.geometry import Region
from wsi_seg.masks.vectorize import vectorize
from wsi_seg.postprocess.objects import (
    Floats,
    ObjectTable,
    Scale,
    joined_tables,
    measure_placed,
)
from wsi_seg.postprocess.strips import Source, Strip, label_strips
from wsi_seg.store import Multiscale
from wsi_seg.store.class_view import channel_of, each_class

_STRIP_PX = 512  # rows of a label map that are outlined at a time
_BATCH = 4096  # objects of a batch


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """A batch of ``n`` objects of a slide.

    Parameters
    ----------
    number
        ``(n,)`` numbers of the objects in the slide's table: 1, 2, 3 ...
    class_id
        ``(n,)`` class ids.
    polygons
        ``(n,)`` outlines, ``(x, y)`` in level-0 pixels.
    uuid
        UUID of each object, which is the same in every export of the same decision.
    figures
        Measurements by name, ``(n,)`` float64 each; areas and perimeters in um2 and um (in level-0
        pixels if mpp is unknown).
    """

    number: NDArray[np.int64]
    class_id: NDArray[np.int64]
    polygons: NDArray[np.object_]
    uuid: list[str]
    figures: Mapping[str, Floats]

    def __len__(self) -> int:
        return len(self.number)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A label map with one class id per pixel: a slide's, or one plane of overlapping classes.

    Parameters
    ----------
    label
        Label map ``(H, W)`` uint8.
    begin
        Number of objects in the preceding parts.
    first
        ``(n,)`` flat index of the first pixel of each object, ascending.
    class_id
        ``(k + 1,)`` maps ids of the part to class ids of the whole label map.
    """

    label: Multiscale
    begin: int
    first: NDArray[np.int64]
    class_id: NDArray[np.int64]

    def rows(self, polygons: NDArray[np.object_]) -> NDArray[np.int64]:
        """Find the rows ``(n,)`` of objects by the first pixel of their outlines."""
        width = self.label.pyramid.extent.width
        xy, which = shapely.get_coordinates(shapely.get_exterior_ring(polygons), return_index=True)
        starts = np.flatnonzero(np.append(True, which[1:] != which[:-1]))
        # The last corner of a row has the index of the next row's first; neither is a first pixel.
        first = np.minimum.reduceat(xy[:, 1] * width + xy[:, 0], starts).astype(np.int64)
        return np.searchsorted(self.first, first)


@dataclass(frozen=True, slots=True, eq=False)
class Outlines:
    """Objects of one slide, without those that are too small. Made by `outlines`; traced lazily.

    Parameters
    ----------
    label
        Label map of the objects.
    table
        All objects, including those that are too small.
    kept
        ``(n,)`` whether each object of the table is large enough.
    parts
        The label map, or one plane for each of the classes if these overlap.
    tolerance_px
        Largest distance of outlines from pixel borders; see `simplify`.
    origin
        Prefix of the objects' UUIDs.

    Examples
    --------
    >>> found = outlines(label)  # doctest: +SKIP
    >>> {entry.name: round(polygon.area) for entry, polygon in found}  # doctest: +SKIP
    {'gland': 1052}
    """

    label: Multiscale
    table: ObjectTable
    kept: NDArray[np.bool_]
    parts: tuple[Part, ...]
    tolerance_px: float
    origin: str

    def __len__(self) -> int:
        return int(self.kept.sum())

    @property
    def classes(self) -> ClassTable:
        """Classes of the label map."""
        return self.label.classes

    @property
    def place(self) -> Place:
        """Position of the label map on the slide."""
        return Place.of(self.label)

    def __iter__(self) -> Iterator[tuple[ClassEntry, Polygon]]:
        """Yield the class and outline of each object, in level-0 pixels."""
        classes = {entry.id: entry for entry in self.classes}
        for batch in self.batches():
            for value, polygon in zip(batch.class_id.tolist(), batch.polygons, strict=True):
                yield classes[value], polygon

    def batches(self) -> Iterator[Batch]:
        """Trace all objects, in the order of their last rows; memory holds one strip of them.

        One thread per core simplifies outlines while the next ones are traced. The order does not
        depend on the number of cores.
        """
        with ThreadPoolExecutor(available_cores(), thread_name_prefix="wsi-outline") as threads:
            yield from _in_order(threads, self._work(), ahead=2 * available_cores())

    def _work(self) -> Iterator[Callable[[], Batch]]:
        for part in self.parts:
            nodes = Nodes(part.label.pyramid.extent)
            found = vectorize(nodes.watch(_pixels(part.label)))
            for some in batched(found, _BATCH):
                values = np.array([value for value, _ in some], dtype=np.int64)
                polygons = np.array([polygon for _, polygon in some], dtype=object)
                row = part.rows(polygons)
                kept = self.kept[row + part.begin]
                if kept.any():
                    values = part.class_id[values[kept]]
                    yield partial(self._batch, part, row[kept], values, polygons[kept], nodes)

    def _batch(
        self,
        part: Part,
        row: NDArray[np.int64],
        class_id: NDArray[np.int64],
        polygons: NDArray[np.object_],
        nodes: Nodes,
    ) -> Batch:
        hull = shapely.area(shapely.convex_hull(polygons))
        table, number = self.table, row + part.begin
        area, perimeter = table.area[number], table.perimeter[number]
        figures = {
            "area": area,
            "perimeter": perimeter,
            # Crofton's formula underestimates the perimeter of objects of a few pixels.
            "circularity": np.minimum(1.0, 4 * np.pi * area / perimeter**2),
            "solidity": shapely.area(polygons) / hull,
            "eccentricity": table.eccentricity[number],
            "mean_probability": table.mean_probability[number],
            "max_probability": table.max_probability[number],
        }
        # Six bytes: one for the class, five for the first pixel.
        digits = (class_id << 40 | part.first[row]).astype(">u8").tobytes().hex()
        uuid = [self.origin + digits[at + 4 : at + 16] for at in range(0, len(digits), 16)]
        drawn = self.place.on_slide(simplify(polygons, nodes, self.tolerance_px))
        return Batch(number + 1, class_id, drawn, uuid, figures)


def _in_order[T](threads: Executor, work: Iterable[Callable[[], T]], *, ahead: int) -> Iterator[T]:
    """Yield the results of tasks in their order, while at most ``ahead`` further ones run."""
    pending: deque[Future[T]] = deque()
    for task in work:
        pending.append(threads.submit(task))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def outlines(
    label: Multiscale,
    probabilities: Multiscale | None = None,
    *,
    min_area_um2: float = 0.0,
    simplify_um: float | None = None,
    identity: Mapping[str, object] | None = None,
) -> Outlines:
    """Outline the objects of a label map, in level-0 pixels of the slide.

    Parameters
    ----------
    label
        Label map of one slide, ``(H, W)`` or, for overlapping classes, ``(H, W, C)`` uint8; planes
        are outlined one after the other.
    probabilities
        Probabilities of the same prediction; without them, measured probabilities are nan.
    min_area_um2
        Objects smaller than this, in um² (px² of level 0 if mpp is unknown), are left out.
    simplify_um
        How far outlines may move in um (level-0 pixels if mpp is unknown), up to half a pixel of
        the label map; 0 keeps the pixels' borders, None takes half a pixel.
    identity
        JSON values that identify the decision, from which the objects' UUIDs are derived; None
        takes the attributes of the label.

    Returns
    -------
    Outlines
        Iterates over the class and outline of each object.

    Raises
    ------
    OutputError
        If ``simplify_um`` is so large that outlines would cross.

    Examples
    --------
    >>> label = open_predictions("pred.zarr")["slide-1"].label("prediction")  # doctest: +SKIP
    >>> write_geojson("slide-1.geojson", outlines(label, min_area_um2=50.0))  # doctest: +SKIP
    57
    """
    scale = Scale(label.downsample, label.pyramid.mpp)
    tolerance_px = _tolerance_px(simplify_um, scale)
    tables: list[ObjectTable] = []
    parts: list[Part] = []
    for part in each_class(label):
        ids = [label.classes.id_of(name) for name in part.classes.names]
        image = probabilities
        if image is not None and label.channels is not None:
            image = channel_of(image, next(iter(part.classes)))
        table, first = measure_placed(_source(part, image), part.classes, scale)
        parts.append(Part(part, sum(len(one) for one in tables), first, np.array([0, *ids])))
        tables.append(table if image is not None else table.without_probabilities())
    table = joined_tables(tables)
    decision = dict(label.attributes) if identity is None else dict(identity)
    # A UUID of version 8 has custom content: a digest of the decision, then class and first pixel.
    text = json.dumps(decision, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()
    origin = f"{digest[:8]}-{digest[8:12]}-8{digest[12:15]}-a{digest[15:18]}-"
    kept = table.area >= min_area_um2
    return Outlines(label, table, kept, tuple(parts), tolerance_px, origin)


def _source(label: Multiscale, image: Multiscale | None) -> Source:
    """Read a label map and its probabilities, with pixels to ignore as background."""
    read = label_strips(label, image)

    def strips() -> Iterator[Strip]:
        for strip in read():
            yield Strip(strip.y, _without_ignored(strip.ids), strip.probability)

    return strips


def _tolerance_px(simplify_um: float | None, scale: Scale) -> float:
    if simplify_um is None:
        return MAX_PX
    tolerance = simplify_um / scale.unit
    if tolerance == 0 or MIN_PX <= tolerance <= 0.5 * (1 + 1e-6):
        return min(tolerance, MAX_PX)
    unit = "pixels" if scale.mpp is None else "um"
    raise OutputError(
        f"got outlines that may move by {simplify_um:g} {unit}; expected 0, or "
        f"{MIN_PX * scale.unit:g} to {scale.unit / 2:g}, half a pixel of the prediction: "
        "beyond that, outlines of neighbours would cross"
    )


def _pixels(label: Multiscale) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    for strip in label.pyramid.extent.strips(_STRIP_PX):
        yield strip.y, read_ids(label, strip)


def read_ids(label: Multiscale, strip: Region) -> NDArray[np.uint8]:
    """Read class ids ``(h, w)`` uint8 of a region, uncached; pixels to ignore are background."""
    return _without_ignored(label.read(strip, cached=False))


def _without_ignored(ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Replace pixels to ignore, which annotations may have, by background."""
    return np.where(ids == IGNORE, 0, ids).astype(np.uint8, copy=False)
