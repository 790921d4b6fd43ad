"""Owns giving annotation files to the slides they belong to."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from wsi_seg.annotations import Annotations, read_for_slides
from wsi_seg.annotations.read import SUFFIXES
from wsi_seg.batch import require_none, run_each
from wsi_seg.choices import Dialect
from wsi_seg.classes import IGNORE_NAME, ClassTable
from wsi_seg.errors import AnnotationError, WsiSegError
from wsi_seg.geometry import Extent
from wsi_seg.masks import outlines
from wsi_seg.masks.boundary import separate
from wsi_seg.masks.labels import write_labels
from wsi_seg.masks.outlines import is_mask, outline_mask
from wsi_seg.progress import Progress, Silent
from wsi_seg.slides.volume import VolumeGrid
from wsi_seg.store import Collection, SlideStore

# Slides that are listed by name.
_NAMED = 5

_ALL_SUFFIXES = (*SUFFIXES, *outlines.SUFFIXES)


@dataclass(frozen=True, slots=True)
class AnnotateReport:
    """What was annotated: objects by slide, repairs by file; slides and files left without.

    ``failures`` says why files of other slides were not drawn.
    """

    objects: dict[str, int]
    classes: tuple[str, ...]
    repairs: dict[str, tuple[str, ...]]
    without: tuple[str, ...]
    unused: tuple[str, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Figures as plain JSON values."""
        return asdict(self)

    def require_whole(self) -> None:
        """Raise a `BatchError` if files of some slides cannot be read; all others are done."""
        require_none(self.failures, done=len(self.objects))

    def lines(self) -> list[str]:
        """Figures as sentences for people."""
        total = sum(self.objects.values())
        names = ", ".join(self.classes)
        lines = [f"{total} objects on {len(self.objects)} slides, classes {names}"]
        for name, repairs in self.repairs.items():
            lines.append(f"{name}: {len(repairs)} repairs, the first: {repairs[0]}")
        if self.without:
            named = _named(self.without)
            lines.append(
                f"slides without annotations: {named} (if nothing is on them: --unlisted-empty)"
            )
        if self.unused:
            lines.append(f"files that fit no slide: {_named(self.unused)}")
        return lines


def _named(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True, slots=True)
class Reading:
    """How annotation files are read.

    Parameters
    ----------
    class_names
        Classes in the order of their ids; empty takes all that occur, sorted by name. The class
        ``ignore`` is not one of them: its outlines are drawn as 255.
    merged
        Names in the files that are another class, and which.
    default_class
        Class of features that name none; None refuses them.
    dialect
        How a csv writes runs; None finds it from the masks.
    volumes
        Volumes whose slices the slides are, for csv files of spheres; by name.
    boundary_um
        Width of strips of the class ``boundary`` between objects that touch, pixels of level 0
        where mpp is unknown; 0 draws none.
    samples
        Points a side of a pixel that decide its class at low levels; 1 takes the centre.
    unlisted_empty
        The files name everything there is: slides without such a label get one with nothing on
        it, and are learned from as such. Labels drawn earlier stay.
    source, weight
        Replace what files say about who drew and how much it counts; None keeps that.
    """

    class_names: tuple[str, ...] = ()
    default_class: str | None = None
    dialect: Dialect | None = None
    source: str | None = None
    weight: float | None = None
    volumes: Mapping[str, VolumeGrid] = field(default_factory=dict)
    boundary_um: float = 0.0
    samples: int = 1
    unlisted_empty: bool = False
    merged: Mapping[str, str] = field(default_factory=dict)


PLAIN = Reading()


def annotate(
    collection: Collection,
    paths: Sequence[Path | str],
    *,
    name: str = "annotations",
    reading: Reading = PLAIN,
    progress: Progress = Silent(),  # noqa: B008 (has no state)
) -> AnnotateReport:
    """Draw annotation files into the slides whose names they bear.

    Parameters
    ----------
    collection
        The slides.
    paths
        Files, or folders of them. COCO's JSON and csv files name their slides; any other file is
        paired with a slide by its name without suffix, the case ignored. Several files of one
        slide are drawn in the order given, later over earlier. A folder may hold files of other
        slides; a file that is named itself must fit one.
    name
        Name of the label.
    reading
        How they are read.
    progress
        Advanced by slides.

    Returns
    -------
    AnnotateReport
        Its `AnnotateReport.require_whole` raises if some files cannot be read; nothing is drawn
        into their slides.

    Raises
    ------
    AnnotationError
        If there is no file, or none fits a slide, or one that is named itself fits none.
    """
    files = [Path(path) for path in paths]
    read, failures, unused = _read_all(collection, _files(files), reading, named=set(files))
    if reading.unlisted_empty:
        rest = set(_without(collection, name)) - set(read) - set(failures)
        read |= {slide: Annotations((), ()) for slide in sorted(rest)}
    if reading.boundary_um:
        read = {name: _separated(a, collection[name], reading) for name, a in read.items()}
    found = sorted({item.class_name for a in read.values() for item in a.items} - {IGNORE_NAME})
    classes = ClassTable.named(reading.class_names or found)

    def work(slide: str) -> int:
        return len(
            write_labels(collection[slide], read[slide], classes, name, samples=reading.samples)
        )

    batch = run_each(read, work, title="annotate", progress=progress)
    return AnnotateReport(
        objects=batch.results,
        classes=classes.names,
        repairs={slide: a.repairs for slide, a in read.items() if a.repairs},
        without=_without(collection, name),
        unused=tuple(unused),
        failures=failures | batch.failures,
    )


def _without(collection: Collection, name: str) -> tuple[str, ...]:
    """Slides that have no label of this name, neither from now nor from earlier."""
    return tuple(store.name for store in collection if name not in store.label_names())


def _read_all(
    collection: Collection, files: Sequence[Path], reading: Reading, *, named: AbstractSet[Path]
) -> tuple[dict[str, Annotations], dict[str, str], list[str]]:
    """Read all files: what each slide gets, why some get nothing, and files of other slides."""
    extents = {store.name: store.pyramid.extent for store in collection}
    read: dict[str, Annotations] = {}
    failures: dict[str, str] = {}
    unused: list[str] = []
    for file in files:
        slide = _slide_of(file, extents)
        try:
            sets = _read(file, slide, extents, reading)
            if slide is None and not sets:
                unused.append(file.name)
                if file in named or len(unused) == len(files):
                    raise AnnotationError(
                        f"{file} fits no slide of {collection.path}; expected its name, or names "
                        f"in it, to be among {', '.join(extents)}"
                    )
            for name, annotations in sets.items():
                _require_same_size(file, annotations, name, extents[name])
                read[name] = _joined(read.get(name), annotations)
        except WsiSegError as error:
            if slide is None:
                raise
            failures[slide] = str(error)
    return {slide: a for slide, a in read.items() if slide not in failures}, failures, unused


def _read(
    file: Path, slide: str | None, extents: Mapping[str, Extent], reading: Reading
) -> dict[str, Annotations]:
    """Annotations of one file, by slide; only of slides that are there."""
    if is_mask(file):
        found: Annotations | dict[str, Annotations] = (
            {}
            if slide is None
            else outline_mask(
                file,
                extents[slide],
                class_names=reading.class_names,
                default_class=reading.default_class,
            )
        )
    else:
        found = read_for_slides(
            file,
            extents,
            default_class=reading.default_class,
            dialect=reading.dialect,
            volumes=reading.volumes,
        )
    if isinstance(found, Annotations):
        found = {} if slide is None else {slide: found}
    return {name: _marked(found[name], reading) for name in extents if name in found}


def _marked(annotations: Annotations, reading: Reading) -> Annotations:
    """Annotations with the class, source and weight that were asked for."""
    items = tuple(
        replace(
            item,
            class_name=reading.merged.get(item.class_name, item.class_name),
            source=item.source if reading.source is None else reading.source,
            weight=item.weight if reading.weight is None else reading.weight,
        )
        for item in annotations.items
    )
    return replace(annotations, items=items)


def _separated(annotations: Annotations, store: SlideStore, reading: Reading) -> Annotations:
    """Annotations with strips between objects that touch, drawn over them."""
    objects = [item for item in annotations.items if item.class_name != IGNORE_NAME]
    strips = separate(objects, reading.boundary_um / (store.pyramid.mpp or 1.0))
    return replace(annotations, items=(*annotations.items, *strips))


def _joined(earlier: Annotations | None, later: Annotations) -> Annotations:
    if earlier is None:
        return later
    return replace(
        later, items=earlier.items + later.items, repairs=earlier.repairs + later.repairs
    )


def _files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(f for f in path.iterdir() if f.name.lower().endswith(_ALL_SUFFIXES))
        elif path.exists():
            files.append(path)
        else:
            raise AnnotationError(f"there is no {path}; expected an annotation file or a folder")
    if not files:
        raise AnnotationError(
            f"got no annotation files in {', '.join(map(str, paths))}; expected some of "
            f"{', '.join(_ALL_SUFFIXES)}"
        )
    return files


def _slide_of(file: Path, extents: Mapping[str, Extent]) -> str | None:
    """Slide that bears the file's name without its suffix, the case ignored."""
    name = file.name.lower()
    suffix = next((s for s in sorted(_ALL_SUFFIXES, key=len)[::-1] if name.endswith(s)), "")
    stem = name.removesuffix(suffix or file.suffix.lower())
    return next((slide for slide in extents if slide.lower() == stem), None)


def _require_same_size(file: Path, annotations: Annotations, slide: str, real: Extent) -> None:
    stated = annotations.extent
    if stated is not None and stated != real:
        raise AnnotationError(
            f"{file} says its image has {stated}, slide {slide!r} has {real}; these belong "
            "to different images"
        )
