"""Owns writing lung masks to the stores of CT slices, with a figure of each volume to check.

A figure shows slices with the outline of the lungs, and warnings.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from wsi_seg.batch import require_none, run_each
from wsi_seg.counts import counted
from wsi_seg.ct.config import LungRule, LungRules
from wsi_seg.ct.linking import slices_by_volume
from wsi_seg.ct.lungs import Lungs, find_lungs
from wsi_seg.errors import ConfigError
from wsi_seg.files.atomic import atomic_path, require_permission
from wsi_seg.files.half_written import remove_partials
from wsi_seg.geometry import Extent
from wsi_seg.ingest.verify import tiled_window
from wsi_seg.masks.labels import write_mask
from wsi_seg.progress import Progress
from wsi_seg.reading.thumbnail import thumbnail_extent
from wsi_seg.slides.window import HOUNSFIELD, Window
from wsi_seg.store import SlideStore, read_thumbnail

# Enough for lungs (about 2 mm per pixel); 1,000 slices have 65 M voxels at this size.
_LONGEST_PX = 256
_SHOWN = 12
_COLUMNS = 4
_OUTLINE = "#e69f00"


@dataclass(frozen=True, slots=True)
class Case:
    """Lungs of one volume."""

    volume: str
    slices: int
    litres: tuple[float, ...]
    flags: tuple[str, ...]
    picture: str


@dataclass(frozen=True, slots=True)
class LungReport:
    """Lungs of all volumes, the folder of the figures, and why other volumes failed."""

    out: Path
    cases: tuple[Case, ...]
    failures: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return the report as text, one line per volume."""
        lines = []
        for case in self.cases:
            litres = " + ".join(f"{one:.2f}" for one in case.litres) or "0"
            flags = "; ".join(case.flags) or "nothing unusual"
            lines.append(f"{case.volume}: {counted(case.slices, 'slice')}, {litres} l; {flags}")
        return [*lines, f"figures are in {self.out}"]

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON values."""
        return asdict(self)

    def require_whole(self) -> None:
        """Raise `BatchError` if some volumes failed; all others are done."""
        require_none(self.failures, done=len(self.cases))


def mask_lungs(
    stores: Sequence[SlideStore],
    rules: LungRules,
    out: Path,
    *,
    slice_mm: Mapping[str, float],
    progress: Progress,
) -> LungReport:
    """Segment the lungs of each volume, write them as tissue masks of its slices, and plot them.

    Parameters
    ----------
    stores
        Slices, named as by `wsi-seg tile`; other slides are ignored.
    rules
        Criteria for lungs.
    out
        Folder for the figures; created if it does not exist.
    slice_mm
        Distance of the slices in mm, by volume; the value in a rule takes precedence.
    progress
        Reports progress in volumes.

    Returns
    -------
    LungReport
        `LungReport.require_whole` raises if some volumes failed.

    Raises
    ------
    ConfigError
        If no slide is a slice of a volume, or a rule is for an unknown volume.
    """
    by_name = {store.name: store for store in stores}
    volumes = slices_by_volume(by_name)
    if not volumes:
        raise ConfigError(
            f"got {counted(len(by_name), 'slide')}, but no slice of a volume; expected names such "
            "as ct_z0012, as `wsi-seg tile` names slices of mhd, nii and DICOM series"
        )
    if unknown := sorted(set(rules.cases) - set(volumes)):
        raise ConfigError(
            f"got rules for {', '.join(unknown)}; expected some of {', '.join(volumes)}"
        )
    require_permission(out)

    def work(volume: str) -> Case:
        rule = rules.of(volume)
        step = rule.slice_mm or slice_mm.get(volume)
        return _mask_volume(volume, [by_name[name] for _, name in volumes[volume]], rule, step, out)

    batch = run_each(volumes, work, title="lungs", unit="volumes", progress=progress)
    remove_partials(out / f"{volume}.png" for volume in batch.results)
    return LungReport(out, tuple(batch.results.values()), batch.failures)


def _mask_volume(
    volume: str,
    slices: Sequence[SlideStore],
    rule: LungRule,
    slice_mm: float | None,
    out: Path,
) -> Case:
    extents = {store.pyramid.extent for store in slices}
    mpp = slices[0].pyramid.mpp
    if len(extents) != 1 or mpp is None:
        raise ConfigError(
            f"{volume}: got slices of {len(extents)} sizes and an mpp of {mpp}; expected one size "
            "and a known mpp; tile them again with --mpp"
        )
    if slice_mm is None:
        raise ConfigError(
            f"{volume}: the distance of its slices is unknown; name its file with --volumes, or "
            "give slice_mm in the rules"
        )
    full = slices[0].pyramid.extent
    size = thumbnail_extent(full, _LONGEST_PX)
    down = full.width / size.width
    spacing = (slice_mm, mpp * full.height / size.height / 1000, mpp * down / 1000)
    lungs = find_lungs(_hounsfield(slices, size, _window(volume, slices)), spacing, rule)
    for store, plane in zip(slices, lungs.mask, strict=True):
        write_mask(store, plane, downsample=down)
    picture = out / f"{volume}.png"
    _draw(volume, slices, size, lungs, picture)
    return Case(volume, len(slices), lungs.litres, lungs.flags, picture.name)


def _window(volume: str, slices: Sequence[SlideStore]) -> Window:
    """Return the intensity window of the slices, in Hounsfield units."""
    windows = {tiled_window(store) for store in slices}
    readers = {store.image.attributes.get("reader") for store in slices}
    if len(windows) != 1 or (None in windows and readers & {"dicom", "nii"}):
        raise ConfigError(
            f"{volume}: got slices with an unknown intensity window, or different ones; expected "
            "one; tile them again with --overwrite --window=-1200,600"
        )
    return windows.pop() or HOUNSFIELD


def _hounsfield(
    slices: Sequence[SlideStore], size: Extent, window: Window
) -> Iterator[NDArray[np.float32]]:
    """Yield the slices in Hounsfield units; a store has them in 255 steps of its window."""
    for store in slices:
        grey = read_thumbnail(store.image, size)[..., 0].astype(np.float32)
        yield np.float32(window.low) + grey * np.float32((window.high - window.low) / 255)


def _draw(
    volume: str, slices: Sequence[SlideStore], size: Extent, lungs: Lungs, path: Path
) -> None:
    chosen = np.unique(np.linspace(0, len(slices) - 1, _SHOWN).round().astype(int)).tolist()
    rows = -(-len(chosen) // _COLUMNS)
    figure = Figure(figsize=(2.6 * _COLUMNS, 2.6 * rows * size.height / size.width + 0.9))
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, z in zip(axes, chosen, strict=False):
        axis.imshow(read_thumbnail(slices[z].image, size))
        if lungs.mask[z].any():
            axis.contour(lungs.mask[z], levels=[0.5], colors=[_OUTLINE], linewidths=1.2)
        axis.set_title(f"z {z}", fontsize=8, pad=2)
    litres = " + ".join(f"{one:.2f}" for one in lungs.litres) or "0"
    flags = "; ".join(lungs.flags)
    title = f"{volume}: {litres} l" + (f" - look: {flags}" if flags else "")
    figure.suptitle(title, fontsize=10, color="#b22222" if flags else "black")
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
