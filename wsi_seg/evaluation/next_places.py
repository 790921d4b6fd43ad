"""Owns selecting places to annotate next: uncertain regions that differ from each other.

The score of a place is ``4 p (1 - p)`` of the most uncertain class, summed over its pixels without
annotation. Places are selected greedily by this score times the distance of their colours and
probabilities from those of the selected places (weighted farthest-first; see Sener and Savarese,
2018, *Active learning for convolutional neural networks: a core-set approach*).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.batch import SlidesReport, require_none, run_each
from wsi_seg.evaluation.pairing import require_same_slide
from wsi_seg.files.atomic import atomic_path
from wsi_seg.files.half_written import remove_partials
from wsi_seg.geometry import Extent
from wsi_seg.progress import Progress
from wsi_seg.reading.channels import largest
from wsi_seg.reading.resample import read_label
from wsi_seg.store import Collection, Predictions, SlideStore, read_thumbnail
from wsi_seg.store.class_view import any_plane

# Maximum length of the longer side of the level that places are scored at.
_MAX_PX = 2048

# Minimum side of a place in pixels of that level.
_MIN_SIDE_PX = 4


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
        Mean of ``4 p (1 - p)`` over the pixels without annotation, 0 to 1.
    area
        Area of these pixels in um2, or in px2 of level 0 if mpp is unknown.
    """

    slide: str
    box: tuple[int, int, int, int]
    uncertainty: float
    area: float


@dataclass(frozen=True, slots=True)
class NextReport(SlidesReport[NextPlace]):
    """Report of a selection: places in the order of annotation.

    Parameters
    ----------
    searched
        Number of slides that were searched for places.
    """

    searched: int

    def require_whole(self) -> None:
        """Raise `BatchError` if some slides failed; all others were searched."""
        require_none(self.failures, done=self.searched)

    def rows(self) -> list[list[str]]:
        """Return the rows of a table: number, slide, box, uncertainty and area."""
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
        """Report as JSON values."""
        places = [
            {"slide": p.slide, "box": list(p.box), "uncertainty": p.uncertainty, "area": p.area}
            for p in self.slides
        ]
        return {"places": places, "failures": dict(self.failures)}

    def write_geojson(self, folder: Path) -> list[Path]:
        """Write the places of each slide to ``<slide>.geojson``, as rectangles for QuPath.

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
        remove_partials(paths)
        return paths


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """Grid of places of one slide: boxes, uncertainties, areas, and features ``(N, F)``."""

    slide: str
    boxes: NDArray[np.int64]
    uncertainty: NDArray[np.float64]
    area: NDArray[np.float64]
    features: NDArray[np.float64]


def next_places(
    predictions: Predictions,
    slides: Collection | Mapping[str, SlideStore],
    *,
    label: str = "annotations",
    side_um: float = 256.0,
    count: int = 20,
    progress: Progress,
) -> NextReport:
    """Select places to annotate next on all predicted slides.

    Parameters
    ----------
    predictions
        Predictions of the slides to annotate.
    slides
        Stores of the slides by name.
    label
        Label of existing annotations, whose pixels do not count; slides may lack it.
    side_um
        Side of a place in um, or in level-0 pixels if mpp is unknown.
    count
        Maximum number of places.
    progress
        Advanced by slides.

    Returns
    -------
    NextReport
        Places in the order of annotation; ties take the first slide.

    Raises
    ------
    StoreError
        If there are no predictions.
    """

    def work(name: str) -> _Cells:
        return _cells(predictions[name], slides[name], label, side_um)

    batch = run_each(predictions.require_names(), work, title="next", progress=progress)
    chosen = _chosen(list(batch.results.values()), count)
    return NextReport(tuple(chosen), len(batch.results), failures=batch.failures)


def slide_places(
    prediction: SlideStore, slide: SlideStore, *, label: str, side_um: float, count: int
) -> list[NextPlace]:
    """Select places to annotate next on one slide; see `next_places`."""
    return _chosen([_cells(prediction, slide, label, side_um)], count)


def _cells(found: SlideStore, slide: SlideStore, label: str, side_um: float) -> _Cells:
    require_same_slide(found, slide)
    full, mpp = slide.pyramid.extent, slide.pyramid.mpp
    levels = found.probabilities.pyramid.extents
    level = next(
        (n for n, e in enumerate(levels) if max(e.height, e.width) <= _MAX_PX), len(levels) - 1
    )
    extent = levels[level]
    probability = found.probabilities.read(extent.region(level), cached=False) / np.float64(255)
    uncertainty = largest(4 * probability * (1 - probability))
    unlabelled = np.ones(uncertainty.shape, dtype=np.bool_)
    if label in slide.label_names():
        known = any_plane(slide.planes(label))
        ids = read_label(known, extent, 0, 0, height=extent.height, width=extent.width)
        unlabelled = ids == 0
    side = max(_MIN_SIDE_PX, round(side_um / (mpp or 1.0) * extent.width / full.width))
    rows, columns = -(-extent.height // side), -(-extent.width // side)
    counts = _sums(unlabelled, side, rows, columns)
    sums = _sums(uncertainty * unlabelled, side, rows, columns)
    sizes = _sums(np.ones(uncertainty.shape), side, rows, columns)
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
        features=np.concatenate([picture.reshape(-1, 3) / 255, means / sizes[:, None]], axis=1),
    )


def _sums(values: NDArray[np.generic], side: int, rows: int, columns: int) -> NDArray[np.float64]:
    """Sum values ``(H, W)`` over each place, to ``(rows * columns,)`` float64."""
    padded = np.zeros((rows * side, columns * side))
    padded[: values.shape[0], : values.shape[1]] = values
    sums: NDArray[np.float64] = padded.reshape(rows, side, columns, side).sum(axis=(1, 3)).ravel()
    return sums


def _chosen(slides: Sequence[_Cells], count: int) -> list[NextPlace]:
    """Select places greedily by score and distance from the places selected before."""
    if not slides:
        return []
    score = np.concatenate([cells.uncertainty * cells.area for cells in slides])
    features = np.concatenate([cells.features for cells in slides])
    every = [(cells, number) for cells in slides for number in range(len(cells.area))]
    distance = np.ones(len(score))
    chosen: list[NextPlace] = []
    while len(chosen) < count and (value := score * distance).max(initial=0.0) > 0:
        best = int(value.argmax())
        cells, number = every[best]
        x, y, x_end, y_end = cells.boxes[number].tolist()
        uncertainty, area = float(cells.uncertainty[number]), float(cells.area[number])
        chosen.append(NextPlace(cells.slide, (x, y, x_end, y_end), uncertainty, area))
        distance = np.minimum(distance, np.linalg.norm(features - features[best], axis=1))
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
