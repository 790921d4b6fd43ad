"""Owns writing the objects of volumes as candidates in mm, in LUNA16's csv format."""

import csv
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.counts import counted
from wsi_seg.ct.linking import VolumeObjects, link_slices, slices_by_volume
from wsi_seg.errors import StoreError
from wsi_seg.files.atomic import atomic_path
from wsi_seg.files.half_written import remove_partials
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
    """Number of candidates per volume."""

    file: Path
    candidates: Mapping[str, int]

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        lines = [
            f"{volume}: {counted(count, 'candidate')}" for volume, count in self.candidates.items()
        ]
        return [*lines, f"wrote {self.file}"]

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON values."""
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
    """Link the objects of slices to objects of volumes, and write the centre of each.

    The probability of a candidate is the maximum over its pixels; its diameter is that of a sphere
    of the same volume.

    Parameters
    ----------
    predictions
        Predictions of slices, named like ``ct_z0012``.
    grids
        Grid of each volume, by name.
    path
        csv file, written atomically.
    rule
        Rule of the decision; None uses the label map that inference wrote.
    min_distance_mm
        Of candidates nearer than this in mm, only one is kept: that with the higher probability,
        then the higher mean, then more pixels, then the first; 0 keeps all.
    progress
        Reports progress in slices.

    Raises
    ------
    StoreError
        If there is no slice, a volume has no grid, or a slice has no probabilities.
    """
    volumes = slices_by_volume(predictions.names())
    if not volumes:
        raise StoreError(
            f"{predictions.path} has no slices of volumes; expected names like ct_z0012"
        )
    missing = sorted(set(volumes) - set(grids))
    if missing:
        raise StoreError(
            f"got no volume file for {missing[0]!r}; expected it among {', '.join(grids) or '-'}"
        )
    counts = {}
    progress.start("link", sum(map(len, volumes.values())), "slices")
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for volume, slices in volumes.items():
            objects, extent = _link(predictions, slices, rule, progress)
            rows = _rows(objects, grids[volume], extent, min_distance_mm)
            writer.writerows((volume, *row) for row in rows)
            counts[volume] = len(rows)
    remove_partials((path,))
    progress.finish()
    return CandidatesReport(path, counts)


def _link(
    predictions: Predictions, slices: list[tuple[int, str]], rule: Rule | None, progress: Progress
) -> tuple[VolumeObjects, Extent]:
    extent = predictions[slices[0][1]].pyramid.extent

    def read(name: str) -> list[Strip]:
        store = predictions[name]
        if store.pyramid.extent != extent:
            raise StoreError(
                f"got slices of one volume of different size: {name} has {store.pyramid.extent}, "
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
    objects: VolumeObjects, grid: VolumeGrid, extent: Extent, min_distance_mm: float
) -> list[tuple[object, ...]]:
    scale = np.array([grid.size[0] / extent.width, grid.size[1] / extent.height])
    voxels = objects.centre.copy()
    # Voxel coordinates refer to centres, pixel coordinates to corners.
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
    """Return the cells of one candidate; see `HEADER`."""
    return (
        *(f"{value:.3f}" for value in centre),
        f"{objects.max_probability[number]:.4f}",
        int(objects.value[number]),
        int(objects.px[number]),
        int(objects.slices[number]),
        f"{diameter:.2f}",
    )
