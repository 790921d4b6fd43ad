"""Owns what to annotate next: places where a model is unsure of much, each unlike the others.

A place counts by uncertainty times area: ``4 p (1 - p)`` of the most uncertain class, summed over
its pixels that nobody annotated. Places are taken one by one, each by that sum times how far its
colours and probabilities are from those of the places taken before (weighted farthest-first; see
Sener and Savarese, 2018, *Active learning for convolutional neural networks: a core-set approach*).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.atomic import atomic_path
from wsi_seg.batch import SlidesReport, run_each
from wsi_seg.evaluation.pairing import require_same_slide
from wsi_seg.geometry import Extent
from wsi_seg.progress import Progress
from wsi_seg.reading.resample import read_label
from wsi_seg.store import Collection, Predictions, SlideStore, read_thumbnail
from wsi_seg.store.class_view import any_plane

# Longer side of the picture that places are measured in, at most.
_LARGEST_PX = 2048

# Pixels along a side of a place, at least: fewer say too little about it.
_LEAST_PX = 4


@dataclass(frozen=True, slots=True)
class NextPlace:
    """One place to annotate.

    Parameters
    ----------
    slide
        Name of the slide.
    box
        x, y, x_end, y_end in level-0 pixels.
    uncertainty
        Mean of ``4 p (1 - p)`` over the pixels that count, 0 to 1.
    area
        Of the pixels that count, in um2; in px2 of level 0 where mpp is unknown.
    """

    slide: str
    box: tuple[int, int, int, int]
    uncertainty: float
    area: float


@dataclass(frozen=True, slots=True)
class NextReport(SlidesReport[NextPlace]):
    """Places, the first to annotate first."""

    def rows(self) -> list[list[str]]:
        """Rows of a table: number, slide, box, uncertainty and area."""
        return [
            [
                str(number),
                place.slide,
                ", ".join(map(str, place.box)),
                f"{place.uncertainty:.2f}",
                f"{place.area:.3g}",
            ]
            for number, place in enumerate(self.slides, 1)
        ]

    def to_json(self) -> dict[str, object]:
        """Places as plain JSON values."""
        places = [
            {"slide": p.slide, "box": list(p.box), "uncertainty": p.uncertainty, "area": p.area}
            for p in self.slides
        ]
        return {"places": places, "failures": dict(self.failures)}

    def write_geojson(self, folder: Path) -> list[Path]:
        """Write the places of each slide to ``<slide>.geojson``, as rectangles that QuPath opens.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        paths = []
        for slide in sorted({place.slide for place in self.slides}):
            own = [(n, p) for n, p in enumerate(self.slides, 1) if p.slide == slide]
            document = {"type": "FeatureCollection", "features": [_feature(*one) for one in own]}
            path = folder / f"{slide}.geojson"
            with atomic_path(path) as partial:
                partial.write_text(json.dumps(document), encoding="utf-8")
            paths.append(path)
        return paths


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """Places of one slide: boxes, uncertainties, areas, and how each looks ``(N, F)`` float64."""

    slide: str
    boxes: NDArray[np.int64]
    uncertainty: NDArray[np.float64]
    area: NDArray[np.float64]
    looks: NDArray[np.float64]


def next_places(
    predictions: Predictions,
    slides: Collection | Mapping[str, SlideStore],
    *,
    label: str = "annotations",
    side_um: float = 256.0,
    count: int = 20,
    progress: Progress,
) -> NextReport:
    """Choose what to annotate next, over all predicted slides.

    Parameters
    ----------
    predictions
        Of slides that are to be annotated further.
    slides
        Their stores, by name.
    label
        Label of what is annotated already, which counts no more; slides may lack it.
    side_um
        Side of a place; pixels of level 0 where mpp is unknown.
    count
        Number of places at most.
    progress
        Advanced by slides.

    Returns
    -------
    NextReport
        Places, the first to annotate first; of equal ones, those of the first slide.

    Raises
    ------
    StoreError
        If there are no predictions.
    """

    def work(name: str) -> _Cells:
        return _cells(predictions[name], slides[name], label, side_um)

    batch = run_each(predictions.require_names(), work, title="next", progress=progress)
    chosen = _chosen(list(batch.results.values()), count)
    return NextReport(tuple(chosen), failures=batch.failures)


def slide_places(
    prediction: SlideStore, slide: SlideStore, *, label: str, side_um: float, count: int
) -> list[NextPlace]:
    """Choose what to annotate next on one slide; see `next_places`."""
    return _chosen([_cells(prediction, slide, label, side_um)], count)


def _cells(found: SlideStore, slide: SlideStore, label: str, side_um: float) -> _Cells:
    require_same_slide(found, slide)
    full, mpp = slide.pyramid.extent, slide.pyramid.mpp
    levels = found.probabilities.pyramid.extents
    level = next(
        (n for n, e in enumerate(levels) if max(e.height, e.width) <= _LARGEST_PX), len(levels) - 1
    )
    extent = levels[level]
    probability = found.probabilities.read(extent.region(level), cached=False) / np.float64(255)
    unsure = (4 * probability * (1 - probability)).max(axis=2)
    open_ = np.ones(unsure.shape, dtype=np.bool_)
    if label in slide.label_names():
        known = any_plane(slide.planes(label))
        ids = read_label(known, extent, 0, 0, height=extent.height, width=extent.width)
        open_ = ids == 0
    side = max(_LEAST_PX, round(side_um / (mpp or 1.0) * extent.width / full.width))
    rows, columns = -(-extent.height // side), -(-extent.width // side)
    counts = _sums(open_, side, rows, columns)
    sums = _sums(unsure * open_, side, rows, columns)
    sizes = _sums(np.ones(unsure.shape), side, rows, columns)
    picture = read_thumbnail(slide.image, Extent(height=rows, width=columns))
    means = np.stack([_sums(p, side, rows, columns) for p in np.moveaxis(probability, 2, 0)], 1)
    scale = full.width / extent.width
    y, x = (side * place for place in np.divmod(np.arange(rows * columns), columns))
    edges = np.stack([x, y, x + side, y + side], axis=1) * scale
    boxes = np.rint(edges).astype(np.int64).clip(0, [full.width, full.height] * 2)
    return _Cells(
        slide=slide.name,
        boxes=boxes,
        uncertainty=sums / np.maximum(counts, 1),
        area=counts * (scale * (mpp or 1.0)) ** 2,
        looks=np.concatenate([picture.reshape(-1, 3) / 255, means / sizes[:, None]], axis=1),
    )


def _sums(values: NDArray[np.generic], side: int, rows: int, columns: int) -> NDArray[np.float64]:
    """Sum of ``(H, W)`` over each place, ``(rows * columns,)``."""
    padded = np.zeros((rows * side, columns * side))
    padded[: values.shape[0], : values.shape[1]] = values
    sums: NDArray[np.float64] = padded.reshape(rows, side, columns, side).sum(axis=(1, 3)).ravel()
    return sums


def _chosen(slides: Sequence[_Cells], count: int) -> list[NextPlace]:
    """Take places one by one, each by its sum of uncertainty and how unlike those before it is."""
    if not slides:
        return []
    score = np.concatenate([cells.uncertainty * cells.area for cells in slides])
    looks = np.concatenate([cells.looks for cells in slides])
    every = [(cells, number) for cells in slides for number in range(len(cells.area))]
    unlike = np.ones(len(score))
    chosen: list[NextPlace] = []
    while len(chosen) < count and (value := score * unlike).max(initial=0.0) > 0:
        best = int(value.argmax())
        cells, number = every[best]
        x, y, x_end, y_end = cells.boxes[number].tolist()
        uncertainty, area = float(cells.uncertainty[number]), float(cells.area[number])
        chosen.append(NextPlace(cells.slide, (x, y, x_end, y_end), uncertainty, area))
        unlike = np.minimum(unlike, np.linalg.norm(looks - looks[best], axis=1))
        score[best] = 0.0
    return chosen


def _feature(number: int, place: NextPlace) -> Mapping[str, object]:
    x, y, x_end, y_end = place.box
    ring = [[x, y], [x_end, y], [x_end, y_end], [x, y_end], [x, y]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": "annotate next"},
            "name": f"{number}",
            "uncertainty": place.uncertainty,
            "area": place.area,
        },
    }
