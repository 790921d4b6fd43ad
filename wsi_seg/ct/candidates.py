"""Owns writing the objects of volumes as marks in mm, in LUNA16's form."""

import csv
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsi_seg.ct.linking import VolumeObjects, link_slices, slices_by_volume
from wsi_seg.errors import StoreError
from wsi_seg.export.files import written_whole
from wsi_seg.geometry import Extent
from wsi_seg.postprocess.rule import Rule
from wsi_seg.postprocess.strips import Strip, labelled
from wsi_seg.postprocess.suppress import kept_apart, likeliest_first
from wsi_seg.postprocess.write import decided_label
from wsi_seg.progress import Progress
from wsi_seg.slides.volume import VolumeGrid
from wsi_seg.store import Collection

HEADER = ("seriesuid", "coordX", "coordY", "coordZ", "probability", "class_id", "px", "slices")


@dataclass(frozen=True, slots=True)
class MarksReport:
    """Number of marks in each volume."""

    file: Path
    marks: Mapping[str, int]

    def lines(self) -> list[str]:
        """Figures as sentences for people."""
        lines = [f"{volume}: {count} marks" for volume, count in self.marks.items()]
        return [*lines, f"wrote {self.file}"]

    def to_json(self) -> dict[str, object]:
        """Figures as plain JSON values."""
        return {"file": str(self.file), "marks": dict(self.marks)}


def write_marks(
    predictions: Collection,
    grids: Mapping[str, VolumeGrid],
    path: Path,
    *,
    rule: Rule | None = None,
    apart_mm: float = 0.0,
    progress: Progress,
) -> MarksReport:
    """Join the objects of slices into objects of volumes, and write the centre of each.

    A mark's probability is the highest of its px.

    Parameters
    ----------
    predictions
        Of slices, whose names end with their number: ``ct_z0012``.
    grids
        Where the voxels of each volume lie, by its name.
    path
        csv file to write, whole or not at all.
    rule
        Makes the decision; None takes the label map that inference wrote.
    apart_mm
        Of marks nearer than this only the likelier stays: the one with the higher probability,
        then with the higher mean, then with more px, then the first; 0 keeps all.
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
    with written_whole(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for volume, slices in volumes.items():
            objects, seen = _linked(predictions, slices, rule, progress)
            rows = _rows(objects, grids[volume], seen, apart_mm)
            writer.writerows((volume, *row) for row in rows)
            counts[volume] = len(rows)
    progress.finish()
    return MarksReport(path, counts)


def _linked(
    predictions: Collection, slices: list[tuple[int, str]], rule: Rule | None, progress: Progress
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
        progress.advance(1)
        return list(labelled(label, image)())

    return link_slices((z, read(name)) for z, name in slices), extent


def _rows(
    objects: VolumeObjects, grid: VolumeGrid, seen: Extent, apart_mm: float
) -> list[tuple[object, ...]]:
    scale = np.array([grid.size[0] / seen.width, grid.size[1] / seen.height])
    voxels = objects.centre.copy()
    # Voxel coordinates name centres, px coordinates corners.
    voxels[:, :2] = voxels[:, :2] * scale - 0.5
    places = grid.world(voxels)
    order = likeliest_first(objects.max_probability, objects.mean_probability, objects.px)
    kept = kept_apart(places, order, distance=apart_mm).tolist()
    rows = [
        (*(f"{value:.3f}" for value in place), f"{probability:.4f}", int(kind), int(px), int(deep))
        for place, probability, kind, px, deep in zip(
            places, objects.max_probability, objects.value, objects.px, objects.slices, strict=True
        )
    ]
    return list(itertools.compress(rows, kept))
