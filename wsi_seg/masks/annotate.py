"""Owns giving annotation files to the slides they belong to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_seg.annotations import Annotations, read_annotations
from wsi_seg.annotations.read import SUFFIXES
from wsi_seg.classes import IGNORE_NAME, ClassTable
from wsi_seg.errors import AnnotationError, BatchError, WsiSegError
from wsi_seg.masks.labels import write_labels
from wsi_seg.progress import Progress
from wsi_seg.store import Collection, SlideStore


@dataclass(frozen=True, slots=True)
class AnnotateReport:
    """What was annotated: objects by slide, repairs by file, slides that got nothing."""

    objects: dict[str, int]
    classes: tuple[str, ...]
    repairs: dict[str, tuple[str, ...]]
    without: tuple[str, ...]

    def lines(self) -> list[str]:
        """Figures as sentences for people."""
        total = sum(self.objects.values())
        names = ", ".join(self.classes)
        lines = [f"{total} objects on {len(self.objects)} slides, classes {names}"]
        for name, repairs in self.repairs.items():
            lines.append(f"{name}: {len(repairs)} repairs, the first: {repairs[0]}")
        if self.without:
            lines.append(f"slides without annotations: {', '.join(self.without)}")
        return lines


def annotate_collection(
    collection: Collection,
    paths: Sequence[Path],
    *,
    name: str = "annotations",
    class_names: Sequence[str] = (),
    default_class: str | None = None,
    progress: Progress,
) -> AnnotateReport:
    """Draw annotation files into the slides whose names they bear.

    Parameters
    ----------
    collection
        The slides.
    paths
        Files, or folders of them; each is paired with a slide by its name without suffix, the
        case ignored.
    name
        Name of the label.
    class_names
        Classes in the order of their ids; empty takes all that occur, sorted by name. The class
        ``ignore`` is none of them: its outlines are drawn as 255.
    default_class
        Class of features that name none; None refuses them.
    progress
        Advanced by slides.

    Raises
    ------
    AnnotationError
        If there is no file, a file fits no slide, or two files fit one.
    BatchError
        If some files cannot be read; all others are done.
    """
    files = _pair(collection, _files(paths))
    read: dict[str, Annotations] = {}
    failures: dict[str, str] = {}
    for slide, file in files.items():
        try:
            read[slide] = read_annotations(file, default_class=default_class)
            _require_same_size(file, read[slide], collection[slide])
        except WsiSegError as error:
            read.pop(slide, None)
            failures[slide] = str(error)
    found = sorted({item.class_name for a in read.values() for item in a.items} - {IGNORE_NAME})
    classes = ClassTable.named(class_names or found)
    progress.start("annotate", len(read), "slides")
    counts: dict[str, int] = {}
    for slide, annotations in read.items():
        counts[slide] = len(write_labels(collection[slide], annotations, classes, name))
        progress.advance(1)
    progress.finish()
    if failures:
        raise BatchError(failures, done=len(read))
    return AnnotateReport(
        objects=counts,
        classes=classes.names,
        repairs={slide: a.repairs for slide, a in read.items() if a.repairs},
        without=tuple(slide for slide in collection.names() if slide not in files),
    )


def _files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(f for f in path.iterdir() if f.name.lower().endswith(SUFFIXES))
        elif path.exists():
            files.append(path)
        else:
            raise AnnotationError(f"there is no {path}; expected an annotation file or a folder")
    if not files:
        raise AnnotationError(
            f"got no annotation files in {', '.join(map(str, paths))}; expected some of "
            f"{', '.join(SUFFIXES)}"
        )
    return files


def _pair(collection: Collection, files: Sequence[Path]) -> dict[str, Path]:
    slides = {name.lower(): name for name in collection.names()}
    pairs: dict[str, Path] = {}
    for file in files:
        suffix = next((s for s in SUFFIXES[::-1] if file.name.lower().endswith(s)), file.suffix)
        stem = file.name[: len(file.name) - len(suffix)]
        slide = slides.get(stem.lower())
        if slide is None:
            raise AnnotationError(
                f"{file} fits no slide of {collection.path}; expected its name to be one of "
                f"{', '.join(collection.names())} with another suffix"
            )
        if slide in pairs:
            raise AnnotationError(
                f"{pairs[slide]} and {file} both belong to slide {slide!r}; give one of them"
            )
        pairs[slide] = file
    return pairs


def _require_same_size(file: Path, annotations: Annotations, store: SlideStore) -> None:
    stated, real = annotations.extent, store.pyramid.extent
    if stated is not None and stated != real:
        raise AnnotationError(
            f"{file} says its image has {stated}, slide {store.name!r} has {real}; these belong "
            "to different images"
        )
