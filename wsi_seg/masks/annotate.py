"""Owns `annotate`: matching annotation files to slides, and drawing them as labels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import shapely

from wsi_seg.annotations import Annotations, AnnotationSets, read_for_slides
from wsi_seg.batch import Batch, run_each
from wsi_seg.classes import special_class
from wsi_seg.counts import counted, list_names
from wsi_seg.errors import AnnotationError, WsiSegError
from wsi_seg.geometry import Extent
from wsi_seg.masks.annotate_report import AnnotateReport
from wsi_seg.masks.boundary import separate
from wsi_seg.masks.files import Source, is_own_picture, list_sources
from wsi_seg.masks.kept import require_not_emptied, require_some, unused_classes
from wsi_seg.masks.labels import write_labels
from wsi_seg.masks.outlines import MASK_SUFFIXES, is_mask, outline_mask
from wsi_seg.masks.rasterize import SPECIAL_IDS
from wsi_seg.masks.reading import PLAIN, Reading
from wsi_seg.masks.segmentations import is_dicom_file, outline_segmentation
from wsi_seg.progress import Progress, Silent
from wsi_seg.shard import Shard
from wsi_seg.store import Collection, SlideStore, store_digest
from wsi_seg.store.group import require_label_name
from wsi_seg.store.names import LABELS
from wsi_seg.store.turns import taking_turns


def annotate(
    collection: Collection,
    paths: Sequence[Path | str],
    *,
    name: str = "annotations",
    reading: Reading = PLAIN,
    shard: Shard | None = None,
    progress: Progress = Silent(),  # noqa: B008 (has no state)
) -> AnnotateReport:
    """Draw annotation files as labels of the slides that they match by name.

    Several processes may work on one collection if each gets its own ``shard``.

    Parameters
    ----------
    collection
        The slides.
    paths
        Files, or folders of files, in which a DICOM segmentation may be a folder of its levels.
        COCO JSON and csv files name their slides; any other file is matched to a slide by its own
        name, see `annotations.names`. Several files of one slide are drawn in the given order,
        later over earlier. A folder may hold files of other slides, and one file per slide; a file
        that is named explicitly must match a slide.
    name
        Name of the label.
    reading
        How the files are read.
    shard
        Share of the slides for this process, balanced by size; after it, the process takes over
        slides of processes that were killed. None is all slides. Each process reads all files.
    progress
        Reports progress in slides.

    Returns
    -------
    AnnotateReport
        `AnnotateReport.require_whole` raises if some files cannot be read, or would empty a label
        that has objects; their slides are unchanged.

    Raises
    ------
    AnnotationError
        If there are no files, no file matches a slide, or an explicitly named one does not; or if
        no object in the files has one of the classes to keep.
    OutputError
        If the name is not valid for a label.
    ConfigError
        See `Reading.classes`.

    Examples
    --------
    >>> annotate(open_collection("store.zarr"), ["polygons/"]).objects  # doctest: +SKIP
    {'slide-1': 41}
    """
    require_label_name(name)
    found = _read_all(collection, [Path(path) for path in paths], reading)
    read, failures = found.read, found.failures
    if reading.unlisted_empty:
        rest = set(_without(collection, name)) - set(read) - set(failures)
        read |= {slide: Annotations((), ()) for slide in sorted(rest)}
    if reading.boundary_um:
        read = {name: _separated(a, collection[name], reading) for name, a in read.items()}
    named_there = {item.class_name for a in read.values() for item in a.items}
    classes = reading.classes(reading.class_names or sorted(named_there - SPECIAL_IDS.keys()))
    require_some(read, classes)

    def work(slide: str) -> int:
        require_not_emptied(collection[slide], name, read[slide], classes)
        return len(
            write_labels(
                collection[slide],
                read[slide],
                classes,
                name,
                samples=reading.samples,
                covered=reading.covered or None,
            )
        )

    if shard is None:
        batch = run_each(read, work, title="annotate", progress=progress)
    else:
        options = {"name": name, "reading": repr(reading), "files": found.files}
        sizes = {slide: found.extents[slide].area for slide in read}
        batch = _share(collection, name, sizes, work, shard, options, progress)
    named = {*read, *failures}
    return AnnotateReport(
        objects=batch.results,
        classes=classes.names,
        repairs={slide: a.repairs for slide, a in read.items() if a.repairs},
        without=tuple(one for one in _without(collection, name) if one not in named),
        unused=tuple(found.unused),
        notes=(*found.notes, *unused_classes(read, classes)),
        failures=failures | batch.failures,
        elsewhere=len(read) - len(batch.results) - len(batch.failures),
    )


def _share(
    collection: Collection,
    name: str,
    sizes: Mapping[str, float],
    work: Callable[[str], int],
    shard: Shard,
    options: Mapping[str, object],
    progress: Progress,
) -> Batch[int]:
    """Draw a share of the slides; a label that was changed after it was drawn is drawn again."""

    def draw(slide: str) -> tuple[int, str]:
        return work(slide), _drawn(collection, slide, name)

    with taking_turns(
        collection.path,
        "annotate",
        shard,
        sizes,
        options=options,
        is_current=lambda slide, found: found == _drawn(collection, slide, name),
        progress=progress,
    ) as turns:
        batch = turns.run(draw, lambda found: found[1], title="annotate")
    return Batch({slide: count for slide, (count, _) in batch.results.items()}, batch.failures)


def _drawn(collection: Collection, slide: str, name: str) -> str:
    """Return a digest of the label as it is now."""
    return store_digest(collection.path / slide / LABELS / name)


def _without(collection: Collection, name: str) -> tuple[str, ...]:
    """Return the slides that have no label of this name, new or old."""
    return tuple(store.name for store in collection if name not in store.label_names())


@dataclass(slots=True)
class _Found:
    """Contents of the files: annotations and failures by slide, and what is not used.

    ``extents`` has the sizes of all slides; ``sources`` maps slide and given folder to the file;
    ``files`` has the path, size in bytes and modification time of each file.
    """

    extents: Mapping[str, Extent]
    read: dict[str, Annotations] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sources: dict[tuple[str, Path], Path] = field(default_factory=dict)
    files: list[tuple[str, int, int]] = field(default_factory=list)


def _read_all(collection: Collection, paths: Sequence[Path], reading: Reading) -> _Found:
    """Read all files."""
    extents = {store.name: store.pyramid.extent for store in collection}
    sources, notes = list_sources(paths, extents)
    found = _Found(extents, notes=notes)
    for source in sources:
        stat = source.file.stat()
        found.files.append((str(source.file), stat.st_size, stat.st_mtime_ns))
        try:
            if not _is_not_a_mask(source, collection, found):
                _take(source, _read(source, extents, reading), collection, extents, found)
        except WsiSegError as error:
            if source.slide is None:
                raise
            found.failures[source.slide] = str(error)
    if len(found.unused) == len(sources):
        raise AnnotationError(_no_match(source.file, collection, found.notes))
    for slide in found.failures:
        found.read.pop(slide, None)
    return found


def _is_not_a_mask(source: Source, collection: Collection, found: _Found) -> bool:
    """Return whether an image is not a mask: it is the slide itself, or annotated by a file."""
    slide, folder, file = source.slide, source.folder, source.file
    if slide is None or not source.is_picture:
        return False
    other = None if folder is None else found.sources.get((slide, folder))
    if other is not None and (other.suffix.lower() not in MASK_SUFFIXES):
        found.notes.append(f"{file.name} is not read as a mask: {other.name} annotates it")
        return True
    if is_own_picture(file, collection[slide].attributes.get("source")):
        found.notes.append(f"{file.name} is not read as a mask: it is slide {slide!r} itself")
        if folder is None and len(found.read) == 0:
            raise AnnotationError(f"{file} is slide {slide!r} itself; expected a mask of it")
        return True
    return False


def _take(
    source: Source,
    sets: AnnotationSets,
    collection: Collection,
    extents: Mapping[str, Extent],
    found: _Found,
) -> None:
    """Add the annotations of a file to its slides."""
    file, folder = source.file, source.folder
    if source.slide is None and not sets.by_slide:
        found.unused.append(file.name)
        if folder is None:
            raise AnnotationError(_no_match(file, collection, sets.unmatched))
    found.notes += [f"{file.name}: {note}" for note in sets.notes]
    if sets.unmatched:
        count, names = len(sets.unmatched), list_names(sets.unmatched)
        found.notes.append(f"{file.name}: {counted(count, 'image')} without a slide: {names}")
    for name, annotations in sets.by_slide.items():
        if folder is not None and (other := found.sources.get((name, folder))) is not None:
            found.failures[name] = (
                f"{other} and {file.name} both annotate it; remove one, or name both files "
                "explicitly, in the order in which to draw them"
            )
            continue
        _require_same_size(file, annotations, name, extents[name])
        kept = _inside(annotations, extents[name])
        if outside := len(annotations.items) - len(kept.items):
            found.notes.append(
                f"{file.name}: {outside} of {counted(len(annotations.items), 'object')} outside "
                f"slide {name!r} ({extents[name]}), skipped"
            )
        found.read[name] = _joined(found.read.get(name), kept)
        if folder is not None:
            found.sources[name, folder] = file


def _no_match(file: Path, collection: Collection, unmatched: Sequence[str]) -> str:
    images = f" ({list_names(unmatched)})" if unmatched else ""
    return (
        f"{file} matches no slide of {collection.path}; expected its name, or names in it{images}, "
        f"to be among {list_names(collection.names())}"
    )


def _inside(annotations: Annotations, extent: Extent) -> Annotations:
    """Return the annotations without those entirely outside the slide."""
    areas = np.array([item.geometry for item in annotations.items], dtype=object)
    x, y, x_end, y_end = shapely.bounds(areas).reshape(-1, 4).T
    inside = (x >= 0) & (y >= 0) & (x_end <= extent.width) & (y_end <= extent.height)
    slide = shapely.box(0, 0, extent.width, extent.height)
    if not inside.all():
        inside[~inside] = shapely.area(shapely.intersection(areas[~inside], slide)) > 0
    items = tuple(item for item, kept in zip(annotations.items, inside, strict=True) if kept)
    return replace(annotations, items=items)


def _read(source: Source, extents: Mapping[str, Extent], reading: Reading) -> AnnotationSets:
    """Return the annotations of one file by slide, only for slides of the collection."""
    file, slide = source.file, source.slide
    found: Annotations | AnnotationSets
    if is_dicom_file(file):
        found = AnnotationSets({}) if slide is None else outline_segmentation(file, extents[slide])
    elif not is_mask(file):
        found = read_for_slides(
            file,
            extents,
            default_class=reading.default_class,
            dialect=reading.dialect,
            volumes=reading.volumes,
        )
    elif slide is None:
        found = AnnotationSets({})
    else:
        names, default = reading.class_names, reading.default_class
        found = outline_mask(file, extents[slide], class_names=names, default_class=default)
    if isinstance(found, Annotations):
        found = AnnotationSets({} if slide is None else {slide: found})
    known = {
        name: _override(found.by_slide[name], reading) for name in extents if name in found.by_slide
    }
    return replace(found, by_slide=known)


def _override(annotations: Annotations, reading: Reading) -> Annotations:
    """Return annotations with class, source and weight replaced as requested."""
    items = tuple(
        replace(
            item,
            class_name=_named_class(item.class_name, reading),
            source=item.source if reading.source is None else reading.source,
            weight=item.weight if reading.weight is None else reading.weight,
        )
        for item in annotations.items
    )
    return replace(annotations, items=items)


def _named_class(name: str, reading: Reading) -> str:
    """Return the class of a name in a file; requested names precede programs' special names."""
    if name in reading.merged or name in reading.class_names:
        return reading.merged.get(name, name)
    return special_class(name)


def _separated(annotations: Annotations, store: SlideStore, reading: Reading) -> Annotations:
    """Return annotations with strips drawn between touching objects."""
    objects = [item for item in annotations.items if item.class_name not in SPECIAL_IDS]
    strips = separate(objects, reading.boundary_um / (store.pyramid.mpp or 1.0))
    return replace(annotations, items=(*annotations.items, *strips))


def _joined(earlier: Annotations | None, later: Annotations) -> Annotations:
    if earlier is None:
        return later
    return replace(
        later, items=earlier.items + later.items, repairs=earlier.repairs + later.repairs
    )


def _require_same_size(file: Path, annotations: Annotations, slide: str, real: Extent) -> None:
    stated = annotations.extent
    if stated is not None and stated != real:
        raise AnnotationError(
            f"{file} states an image of {stated}; expected {real}, the size of slide {slide!r}; "
            "check that both are of the same image"
        )
