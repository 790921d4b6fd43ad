"""Owns writing the objects of volumes as candidates in mm, in LUNA16's form."""

import csv
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.atomic import atomic_path
from wsi_seg.ct.linking import VolumeObjects, link_slices, slices_by_volume
from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent
from wsi_seg.postprocess.nms import nms_by_distance, score_order
from wsi_seg.postprocess.rule import Rule
from wsi_seg.postprocess.strips import Strip, label_strips
from wsi_seg.postprocess.write import decided_label
from wsi_seg.progress import Progress
from wsi_seg.slides.volume import VolumeGrid
from wsi_seg.store import Predictions
from wsi_seg.store.slide_store import planes_error

HEADER = (
    "seriesuid", "coordX", "coordY", "coordZ", "probability", "class_id", "px", "slices",
    "diameter_mm",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CandidatesReport:
    """Number of candidates in each volume."""

    file: Path
    candidates: Mapping[str, int]

    def lines(self) -> list[str]:
        """Figures as sentences for people."""
        lines = [f"{volume}: {count} candidates" for volume, count in self.candidates.items()]
        return [*lines, f"wrote {self.file}"]

    def to_json(self) -> dict[str, object]:
        """Figures as plain JSON values."""
        return {"file": str(self.file), "candidates": dict(self.candidates)}


def write_candidates(
    predictions: Predictions,
    grids: Mapping[str, VolumeGrid],
    path: Path,
    *,
    rule: Rule | None = None,
    min_distance_mm: float = 0.0,
    progress: Progress,
) -> CandidatesReport:
    """Join the objects of slices into objects of volumes, and write the centre of each.

    A candidate's probability is the highest of its pixels, its diameter that of the sphere of its
    volume.

    Parameters
    ----------
    predictions
        Of slices, whose names end with their number: ``ct_z0012``.
    grids
        Where the voxels of each volume are, by its name.
    path
        csv file to write, whole or not at all.
    rule
        Makes the decision; None takes the label map that inference wrote.
    min_distance_mm
        Of candidates nearer than this only one stays: that of the higher probability, then of the
        higher mean, then with more pixels, then the first; 0 keeps all.
    progress
        Advanced by slices.

    Raises
    ------
    StoreError
        If there is no slice, a volume is not known, or a slice has no probabilities.
    """
    volumes = slices_by_volume(predictions.names())
    if not volumes:
        raise StoreError(
            f"{predictions.path} has no slices of volumes; expected names like ct_z0012"
        )
    missing = sorted(set(volumes) - set(grids))
    if missing:
        raise StoreError(
            f"got no volume file for {missing[0]!r}; expected one among {', '.join(grids) or '-'}"
        )
    counts = {}
    progress.start("link", sum(map(len, volumes.values())), "slices")
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for volume, slices in volumes.items():
            objects, seen = _linked(predictions, slices, rule, progress)
            rows = _rows(objects, grids[volume], seen, min_distance_mm)
            writer.writerows((volume, *row) for row in rows)
            counts[volume] = len(rows)
    progress.finish()
    return CandidatesReport(path, counts)


def _linked(
    predictions: Predictions, slices: list[tuple[int, str]], rule: Rule | None, progress: Progress
) -> tuple[VolumeObjects, Extent]:
    extent = predictions[slices[0][1]].pyramid.extent

    def read(name: str) -> list[Strip]:
        store = predictions[name]
        if store.pyramid.extent != extent:
            raise StoreError(
                f"slices of one volume differ: {name} has {store.pyramid.extent}, "
                f"{slices[0][1]} has {extent}; predict the volume again"
            )
        image = store.probabilities
        label = decided_label(store, rule)
        if label.channels is not None:
            raise planes_error(store.name, label.name)
        progress.advance(1)
        return list(label_strips(label, image)())

    return link_slices((z, read(name)) for z, name in slices), extent


def _rows(
    objects: VolumeObjects, grid: VolumeGrid, seen: Extent, min_distance_mm: float
) -> list[tuple[object, ...]]:
    scale = np.array([grid.size[0] / seen.width, grid.size[1] / seen.height])
    voxels = objects.centre.copy()
    # Voxel coordinates are of centres, pixel coordinates of corners.
    voxels[:, :2] = voxels[:, :2] * scale - 0.5
    centres = grid.world(voxels)
    px_mm3 = float(np.prod(grid.spacing) * np.prod(scale))
    diameters = np.cbrt(6 / np.pi * objects.px * px_mm3)
    order = score_order(objects.max_probability, objects.mean_probability, objects.px)
    kept = nms_by_distance(centres, order, min_distance=min_distance_mm).tolist()
    rows = [_row(objects, n, centre, diameters[n]) for n, centre in enumerate(centres)]
    return list(itertools.compress(rows, kept))


def _row(
    objects: VolumeObjects, number: int, centre: NDArray[np.float64], diameter: float
) -> tuple[object, ...]:
    """Cells of one candidate, see `HEADER`."""
    return (
        *(f"{value:.3f}" for value in centre),
        f"{objects.max_probability[number]:.4f}",
        int(objects.value[number]),
        int(objects.px[number]),
        int(objects.slices[number]),
        f"{diameter:.2f}",
    )
