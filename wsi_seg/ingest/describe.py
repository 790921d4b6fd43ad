"""Owns the description of a slide, and of what tiling would do with it, before doing it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_seg.batch import SlidesReport
from wsi_seg.errors import WsiSegError
from wsi_seg.ingest.plan import plan_levels
from wsi_seg.slides import Slide, find_slides, open_slide, source_bytes


@dataclass(frozen=True, slots=True)
class LevelDescription:
    """One level of the store that tiling would make."""

    height: int
    width: int
    downsample: float
    chunk_height: int
    chunk_width: int
    encoding: str
    reason: str


@dataclass(frozen=True, slots=True)
class SlideDescription:
    """What one file is."""

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
    """What some files are; ``failures`` says by its path why each other cannot be read."""

    def lines(self) -> list[str]:
        """Describe each slide in sentences for people."""
        return [str(slide) for slide in self.slides]


def describe_slides(
    paths: Sequence[Path], *, mpp: float | None = None, scene: str | None = None
) -> InfoReport:
    """Describe slide files, and those in folders.

    Parameters
    ----------
    paths
        Slide files, and folders that are searched for them.
    mpp
        Micrometres per pixel that replace what the files say.
    scene
        Number or name of the image to take from files with several.

    Raises
    ------
    SlideError
        If there is no slide, or the only one cannot be read.
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
