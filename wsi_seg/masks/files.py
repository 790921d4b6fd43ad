"""Owns which annotation files are read, and the slide that the name of each fits."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_seg.annotations.names import Fit, SlideNames
from wsi_seg.annotations.read import SUFFIXES
from wsi_seg.errors import AnnotationError
from wsi_seg.masks.outlines import MASK_SUFFIXES
from wsi_seg.masks.segmentations import segmentations_in
from wsi_seg.slides import source_digest

ALL_SUFFIXES = (*SUFFIXES, *MASK_SUFFIXES)


@dataclass(frozen=True, slots=True)
class Source:
    """One file to read.

    Parameters
    ----------
    file
        The file.
    folder
        Folder that was given and holds it; None for a file that was named itself.
    fit
        Slide that its name fits; None where it fits none.
    """

    file: Path
    folder: Path | None
    fit: Fit | None

    @property
    def slide(self) -> str | None:
        """Name of the slide."""
        return None if self.fit is None else self.fit.slide

    @property
    def is_picture(self) -> bool:
        """Whether its name ends like that of a mask."""
        return self.file.name.lower().endswith(MASK_SUFFIXES)


def list_sources(paths: Sequence[Path], slides: Iterable[str]) -> tuple[list[Source], list[str]]:
    """List the files to read, in the order given; pictures of a folder after its other files.

    Parameters
    ----------
    paths
        Files, and folders whose files end like annotations.
    slides
        Names of the slides.

    Returns
    -------
    sources : list of Source
        The files.
    notes : list of str
        What is in the folders and is not read, one sentence each.

    Raises
    ------
    AnnotationError
        If there is no such path, or no annotation file at all.
    """
    names = SlideNames(slides)
    sources: list[Source] = []
    notes: list[str] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(path.iterdir())
            taken = [file for file in inside if file.name.lower().endswith(ALL_SUFFIXES)]
            found = [Source(file, path, _fit(names, file)) for file in taken if file.is_file()]
            segmented, of_dicom = _segmentations(path, inside, names)
            found += segmented
            sources += sorted(found, key=lambda source: source.is_picture)
            if others := _others(inside, [*taken, *of_dicom]):
                notes.append(f"not read in {path}: {others}")
        elif path.exists():
            fit = _fit(names, path)
            if fit is None and path.suffix.lower() == ".dcm":  # a level in its slide's folder
                fit = names.find(path.absolute().parent.name)
            sources.append(Source(path, None, fit))
        else:
            raise AnnotationError(f"there is no {path}; expected an annotation file or a folder")
    if not sources:
        raise AnnotationError(
            f"got no annotation files in {', '.join(map(str, paths))}; expected some of "
            f"{', '.join(ALL_SUFFIXES)}" + "".join(f"; {note}" for note in notes)
        )
    return _better(sources), notes


def _segmentations(
    folder: Path, inside: Sequence[Path], names: SlideNames
) -> tuple[list[Source], list[Path]]:
    """DICOM segmentations of a folder, and what of it they are.

    Each is a file with the name of its slide, or the finest one in a folder of that name: the
    folder itself, or one in it.
    """
    files = segmentations_in(inside)
    fits = {file: _fit(names, file) for file in files}
    found = [Source(file, folder, fit) for file, fit in fits.items() if fit is not None]
    if rest := [file for file, fit in fits.items() if fit is None]:
        found.append(Source(rest[0], folder, names.find(folder.name)))
    for child in inside:
        if child.is_dir() and (levels := segmentations_in(sorted(child.iterdir()))):
            found.append(Source(levels[0], folder, names.find(child.name)))
            files.append(child)
    return found, files


def is_own_picture(file: Path, noted: object) -> bool:
    """Whether a file is what the slide was made of, by what its store notes as its source."""
    return (
        isinstance(noted, Mapping)
        and noted.get("bytes") == file.stat().st_size
        and noted.get("sha256_of_ends") == source_digest(file)
    )


def _fit(names: SlideNames, file: Path) -> Fit | None:
    """Slide that bears a file's name, with or without its suffix."""
    lower = file.name.lower()
    suffix = next((s for s in sorted(SUFFIXES, key=len)[::-1] if lower.endswith(s)), "")
    if not suffix and not lower.endswith(MASK_SUFFIXES):
        suffix = file.suffix
    try:
        return names.find(file.name[: len(file.name) - len(suffix)])
    except AnnotationError as error:
        raise AnnotationError(f"{file}: {error}") from error


def _better(sources: Sequence[Source]) -> list[Source]:
    """Files without their slide where another one of the folder fits it better; pictures apart."""
    best: dict[tuple[Path | None, bool, str], int] = {}
    for source in sources:
        if source.fit is not None:
            key = source.folder, source.is_picture, source.fit.slide
            best[key] = min(best.get(key, source.fit.rank), source.fit.rank)
    return [
        source
        if source.fit is None
        or source.fit.rank == best[source.folder, source.is_picture, source.fit.slide]
        else Source(source.file, source.folder, None)
        for source in sources
    ]


def _others(inside: Sequence[Path], taken: Sequence[Path]) -> str:
    """Count what else is in a folder, by kind; hidden files are not counted."""
    others = [path for path in inside if path not in set(taken) and not path.name.startswith(".")]
    kinds = Counter("folders" if path.is_dir() else path.suffix.lower() or "without suffix"
                    for path in others)  # fmt: skip
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())
