"""Owns the report of a run of `wsi-seg tile`."""

from dataclasses import dataclass
from pathlib import Path

from wsi_seg.batch import SlidesReport, elsewhere_lines
from wsi_seg.counts import counted, list_names
from wsi_seg.files.atomic import folder_bytes
from wsi_seg.store.slide_store import SlideStore


@dataclass(frozen=True, slots=True)
class TiledSlide:
    """A slide of the collection.

    ``skipped`` is whether it existed before; ``levels`` are the encodings of levels, ``height`` and
    ``width`` the size of level 0 in pixels, ``mpp`` its micrometres per pixel, None if unknown;
    ``replaced_labels`` are the labels of the store that it replaced.
    """

    name: str
    height: int
    width: int
    mpp: float | None
    levels: tuple[str, ...]
    source_bytes: int
    store_bytes: int
    skipped: bool
    replaced_labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, store: SlideStore, source_bytes: int, *, skipped: bool) -> "TiledSlide":
        """Describe a finished store."""
        extent = store.pyramid.extent
        return cls(
            name=store.name,
            height=extent.height,
            width=extent.width,
            mpp=store.pyramid.mpp,
            levels=tuple(level.encoding for level in store.info.levels),
            source_bytes=source_bytes,
            store_bytes=folder_bytes(store.path),
            skipped=skipped,
        )


@dataclass(frozen=True, slots=True)
class TileReport(SlidesReport[TiledSlide]):
    """Result of one run: slides of the collection ``out``, and the time in ``seconds``.

    ``elsewhere`` is the number of slides that other processes tile or have tiled.
    """

    out: Path
    seconds: float
    elsewhere: int = 0

    def lines(self) -> list[str]:
        """Format the report as lines of text."""
        new = [slide for slide in self.slides if not slide.skipped]
        size = sum(slide.store_bytes for slide in new)
        source = sum(slide.source_bytes for slide in new)
        ratio = f", {size / source:.2f}x the files" if source else ""
        there = len(self.slides) - len(new)
        made = f"{counted(len(new), 'slide')} tiled in {self.seconds:.1f} s, "
        made += f"{size / 1e6:.1f} MB{ratio}"
        lines = [f"{made}; {there} already existed"]
        lines += elsewhere_lines(self.elsewhere)
        for slide in self.slides:
            mpp = "mpp unknown" if slide.mpp is None else f"{slide.mpp:.4g} um/px"
            lines.append(f"{slide.name}: {slide.width} x {slide.height} px, {mpp}, ")
            lines[-1] += ", ".join(dict.fromkeys(slide.levels))
        if unknown := [slide.name for slide in self.slides if slide.mpp is None]:
            lines.append(
                f"mpp is unknown of {list_names(unknown)}: infer and train refuse such slides; "
                f"give it with `wsi-seg tile SLIDE --mpp X --overwrite --out {self.out}`"
            )
        if replaced := [slide for slide in self.slides if slide.replaced_labels]:
            labels = sorted({label for slide in replaced for label in slide.replaced_labels})
            lines.append(
                f"{list_names(labels)} of {list_names([slide.name for slide in replaced])} went "
                "with the stores that were replaced; make labels again with `wsi-seg annotate`"
            )
        return lines
