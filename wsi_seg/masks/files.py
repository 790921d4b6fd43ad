"""Owns listing annotation files, and matching each to a slide by name."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_seg.annotations.names import Match, SlideNames
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
        Given folder that holds it; None for a file that was named explicitly.
    match
        Slide that its name matches, if any.
    """

    file: Path
    folder: Path | None
    match: Match | None

    @property
    def slide(self) -> str | None:
        """Name of the slide."""
        return None if self.match is None else self.match.slide

    @property
    def is_picture(self) -> bool:
        """Whether its suffix is that of a mask image."""
        return self.file.name.lower().endswith(MASK_SUFFIXES)


def list_sources(paths: Sequence[Path], slides: Iterable[str]) -> tuple[list[Source], list[str]]:
    """List the files to read in the given order; images of a folder follow its other files.

    Parameters
    ----------
    paths
        Files, and folders of annotation files.
    slides
        Names of the slides.

    Returns
    -------
    sources : list of Source
        The files.
    notes : list of str
        What is not read in the folders, one sentence each.

    Raises
    ------
    AnnotationError
        If a path does not exist, or there is no annotation file.
    """
    names = SlideNames(slides)
    sources: list[Source] = []
    notes: list[str] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(path.iterdir())
            taken = [file for file in inside if file.name.lower().endswith(ALL_SUFFIXES)]
            found = [Source(file, path, _match(names, file)) for file in taken if file.is_file()]
            segmented, of_dicom = _segmentations(path, inside, names)
            found += segmented
            sources += sorted(found, key=lambda source: source.is_picture)
            if others := _others(inside, [*taken, *of_dicom]):
                notes.append(f"not read in {path}: {others}")
        elif path.exists():
            match = _match(names, path)
            if match is None and path.suffix.lower() == ".dcm":  # a level in its slide's folder
                match = names.find(path.absolute().parent.name)
            sources.append(Source(path, None, match))
        else:
            raise AnnotationError(f"{path} does not exist; expected an annotation file or a folder")
    if not sources:
        raise AnnotationError(
            f"got no annotation files in {', '.join(map(str, paths))}; expected some of "
            f"{', '.join(ALL_SUFFIXES)}" + "".join(f"; {note}" for note in notes)
        )
    return _keep_best(sources), notes


def _segmentations(
    folder: Path, inside: Sequence[Path], names: SlideNames
) -> tuple[list[Source], list[Path]]:
    """Return the DICOM segmentations in a folder, and the paths that belong to them.

    A segmentation is a file with the name of its slide, or the finest file in a folder of that
    name: the folder itself, or a subfolder.
    """
    files = segmentations_in(inside)
    matches = {file: _match(names, file) for file in files}
    found = [Source(file, folder, match) for file, match in matches.items() if match is not None]
    if rest := [file for file, match in matches.items() if match is None]:
        found.append(Source(rest[0], folder, names.find(folder.name)))
    for child in inside:
        if child.is_dir() and (levels := segmentations_in(sorted(child.iterdir()))):
            found.append(Source(levels[0], folder, names.find(child.name)))
            files.append(child)
    return found, files


def is_own_picture(file: Path, noted: object) -> bool:
    """Return whether a file is the source of a slide, by size and digest in the store."""
    return (
        isinstance(noted, Mapping)
        and noted.get("bytes") == file.stat().st_size
        and noted.get("sha256_of_ends") == source_digest(file)
    )


def _match(names: SlideNames, file: Path) -> Match | None:
    """Match a file's name, with or without its suffix, to a slide."""
    lower = file.name.lower()
    suffix = next((s for s in sorted(SUFFIXES, key=len)[::-1] if lower.endswith(s)), "")
    if not suffix and not lower.endswith(MASK_SUFFIXES):
        suffix = file.suffix
    try:
        return names.find(file.name[: len(file.name) - len(suffix)])
    except AnnotationError as error:
        raise AnnotationError(f"{file}: {error}") from error


def _keep_best(sources: Sequence[Source]) -> list[Source]:
    """Unmatch files for whose slide another in the folder matches better; images separately."""
    best: dict[tuple[Path | None, bool, str], int] = {}
    for source in sources:
        if source.match is not None:
            key = source.folder, source.is_picture, source.match.slide
            best[key] = min(best.get(key, source.match.rank), source.match.rank)
    return [
        source
        if source.match is None
        or source.match.rank == best[source.folder, source.is_picture, source.match.slide]
        else Source(source.file, source.folder, None)
        for source in sources
    ]


def _others(inside: Sequence[Path], taken: Sequence[Path]) -> str:
    """Count the other files of a folder by suffix, without hidden ones."""
    others = [path for path in inside if path not in set(taken) and not path.name.startswith(".")]
    kinds = Counter("folders" if path.is_dir() else path.suffix.lower() or "without suffix"
                    for path in others)  # fmt: skip
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())
