"""Owns the description of slide files, and of the stores that tiling would make of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_seg.batch import SlidesReport
from wsi_seg.errors import WsiSegError
from wsi_seg.ingest.plan import plan_levels
from wsi_seg.slides import Slide, find_slides, open_slide, source_bytes


@dataclass(frozen=True, slots=True)
class LevelDescription:
    """One level of the store that tiling would make; sizes are in pixels."""

    height: int
    width: int
    downsample: float
    chunk_height: int
    chunk_width: int
    encoding: str
    reason: str


@dataclass(frozen=True, slots=True)
class SlideDescription:
    """Description of one slide file.

    ``mpp`` is micrometres per pixel of level 0, None if unknown; ``nbytes`` the size of the file.
    """

    path: Path
    name: str
    format: str
    nbytes: int
    mpp: float | None
    mpp_source: str
    levels: tuple[LevelDescription, ...]

    def __str__(self) -> str:
        mpp = (
            "mpp unknown; give it with --mpp"
            if self.mpp is None
            else f"{self.mpp:.4g} um/px ({self.mpp_source})"
        )
        lines = [f"{self.path}: {self.format}, {self.nbytes / 1e6:.1f} MB, {mpp}"]
        for number, level in enumerate(self.levels):
            because = f" ({level.reason})" if level.reason else ""
            lines.append(
                f"  level {number}: {level.width} x {level.height} px, 1/{level.downsample:.4g}, "
                f"chunks {level.chunk_width} x {level.chunk_height}, {level.encoding}{because}"
            )
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class InfoReport(SlidesReport[SlideDescription]):
    """Descriptions of slide files; ``failures`` maps paths of unreadable files to reasons."""

    def lines(self) -> list[str]:
        """Format the description of each slide as text."""
        return [str(slide) for slide in self.slides]


def describe_slides(
    paths: Sequence[Path], *, mpp: float | None = None, scene: str | None = None
) -> InfoReport:
    """Describe slide files, and the slides in folders.

    Parameters
    ----------
    paths
        Slide files, and folders to search for them.
    mpp
        Micrometres per pixel of level 0, instead of those of the files.
    scene
        Number (from 1) or name of the image in files with several.

    Raises
    ------
    SlideError
        If there are no slides, or the only one cannot be read.
    """
    files = find_slides(list(paths))
    found, failures = [], {}
    for file in files:
        try:
            with open_slide(file, mpp=mpp, scene=scene) as slide:
                found.append(describe(slide))
        except WsiSegError as error:
            if len(files) == 1:
                raise
            failures[str(file)] = str(error)
    return InfoReport(tuple(found), failures=failures)


def describe(slide: Slide) -> SlideDescription:
    """Describe one open slide."""
    plans = plan_levels(slide)
    base = plans[0].layout.extent
    return SlideDescription(
        path=slide.path,
        name=slide.name,
        format=slide.format,
        nbytes=source_bytes(slide.path),
        mpp=slide.pyramid.mpp,
        mpp_source=slide.mpp_source,
        levels=tuple(
            LevelDescription(
                height=plan.layout.extent.height,
                width=plan.layout.extent.width,
                downsample=base.width / plan.layout.extent.width,
                chunk_height=plan.layout.chunk.height,
                chunk_width=plan.layout.chunk.width,
                encoding=plan.encoding,
                reason=plan.reason,
            )
            for plan in plans
        ),
    )
