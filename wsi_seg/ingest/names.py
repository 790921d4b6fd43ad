"""Owns the selection of slides to tile, and their names in the collection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wsi_seg.choices import NamesBy
from wsi_seg.errors import SlideError
from wsi_seg.files.object_path import place
from wsi_seg.masks.inside import Inside
from wsi_seg.selection import Selection
from wsi_seg.shard import Shard
from wsi_seg.slides import search_slides, slide_name
from wsi_seg.slides.find import log_skipped
from wsi_seg.slides.slide import split_member
from wsi_seg.store.names import METADATA


@dataclass(frozen=True, slots=True)
class NamedSlides:
    """Slides with their names, and errors of slides whose names cannot be used.

    Parameters
    ----------
    names
        Name of each slide.
    clashes
        Why slides are skipped, by the names that they would have.
    mpp
        Micrometres per pixel of level 0 instead of those of the files, by name; can be empty.
    inside
        Part of each slide to tile, given by polygons or a box; None for the whole slide.
    shard
        Share of the slides for this process, balanced by file size; it then continues the work of
        stopped processes. None takes all slides.
    """

    names: Mapping[Path, str]
    clashes: Mapping[str, SlideError]
    mpp: Mapping[str, float] = field(default_factory=dict)
    inside: Inside | None = None
    shard: Shard | None = None


def name_slides(
    paths: Sequence[Path | str], by: NamesBy = "stem", *, only: Selection | None = None
) -> NamedSlides:
    """Find slides and name them.

    Parameters
    ----------
    paths
        Slide files, and folders to search for them.
    by
        ``stem`` names a slide by its file name; ``path`` prepends the folders below the searched
        one, or the parent folder of a file given by itself: ``b/s.tif`` is ``b_s``.
    only
        Selection of slides by name, with their mpp if its table has it; None for all.

    Raises
    ------
    SlideError
        If there are no slides.
    ConfigError
        If selected slides do not exist.
    """
    found = search_slides([place(path) for path in paths])
    log_skipped(found)
    by_name: dict[str, list[Path]] = {}
    for path in found.slides:
        name = slide_name(path) if by == "stem" else _path_name(path, found.roots.get(path))
        by_name.setdefault(name, []).append(path)
    names: dict[Path, str] = {}
    clashes: dict[str, SlideError] = {}
    for name in by_name if only is None else only.pick(by_name):
        slides = by_name[name]
        if not name or name.startswith(".") or name == METADATA or not _is_text(name):
            clashes[name] = SlideError(
                f"{slides[0]}: got the name {name!r}, which no store can have; rename it"
            )
        elif len(slides) > 1:
            listed = " and ".join(map(str, slides))
            advice = "use --names path to include their folders" if by == "stem" else "rename one"
            clashes[name] = SlideError(
                f"got {_count(len(slides))} slides named {name!r}: {listed}; {advice}"
            )
        else:
            names[slides[0]] = name
    stated = {} if only is None else {name: only.mpp(name) for name in names.values()}
    known = {name: mpp for name, mpp in stated.items() if mpp is not None}
    return NamedSlides(names, clashes, known)


def _is_text(name: str) -> bool:
    """Whether a name is valid Unicode; file names can be arbitrary bytes."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _count(number: int) -> str:
    return "two" if number == 2 else str(number)


def _path_name(path: Path, root: Path | None) -> str:
    member = split_member(path)
    whole = path if member is None else member[0]
    if root is None:
        folders: tuple[str, ...] = (whole.parent.resolve().name,)
    else:
        folders = () if whole == root else whole.parent.relative_to(root).parts
    return "_".join([*folders, slide_name(path)])
