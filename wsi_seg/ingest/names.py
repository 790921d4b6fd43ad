"""Owns which slides a run takes, and how they are called in the collection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_seg.choices import NamesBy
from wsi_seg.errors import SlideError
from wsi_seg.slides import search_slides, slide_name
from wsi_seg.slides.find import log_left
from wsi_seg.slides.slide import split_member
from wsi_seg.store.names import METADATA


@dataclass(frozen=True, slots=True)
class NamedSlides:
    """Slides with their names, and those that have the same name as another.

    Parameters
    ----------
    names
        Name of each slide.
    clashes
        Why slides are left out, by the names that they would have.
    """

    names: Mapping[Path, str]
    clashes: Mapping[str, SlideError]


def name_slides(paths: Sequence[Path], by: NamesBy = "stem") -> NamedSlides:
    """Find slides and name them.

    Parameters
    ----------
    paths
        Slide files, and folders that are searched for them.
    by
        ``stem`` names a slide by its file alone; ``path`` puts the folders below the searched one
        before that, or the file's own folder if the file is named itself: ``b/s.tif`` is ``b_s``.

    Raises
    ------
    SlideError
        If there is no slide.
    """
    found = search_slides(list(paths))
    log_left(found)
    by_name: dict[str, list[Path]] = {}
    for path in found.slides:
        name = slide_name(path) if by == "stem" else _path_name(path, found.roots.get(path))
        by_name.setdefault(name, []).append(path)
    names: dict[Path, str] = {}
    clashes: dict[str, SlideError] = {}
    for name, slides in by_name.items():
        if not name or name.startswith(".") or name == METADATA or not _is_text(name):
            clashes[name] = SlideError(
                f"{slides[0]}: got the name {name!r}, which no store can have; rename it"
            )
        elif len(slides) > 1:
            listed = " and ".join(map(str, slides))
            tell = "--names path tells them apart by their folders"
            clashes[name] = SlideError(
                f"got {_count(len(slides))} slides named {name!r}: {listed}; "
                f"{tell if by == 'stem' else 'rename one'}"
            )
        else:
            names[slides[0]] = name
    return NamedSlides(names, clashes)


def _is_text(name: str) -> bool:
    """Whether a name can be written into metadata: names of files may be any bytes."""
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
