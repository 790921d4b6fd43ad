"""Owns which objects of annotation files are drawn, and that they empty no label."""

from collections import Counter
from collections.abc import Iterable, Mapping

from wsi_seg.annotations import Annotations
from wsi_seg.annotations.names import named
from wsi_seg.classes import BACKGROUND_NAME, IGNORE_NAME, ClassTable
from wsi_seg.errors import AnnotationError
from wsi_seg.masks.objects import read_objects
from wsi_seg.store import SlideStore
from wsi_seg.store.names import LABELS

# Names in files that are drawn and are no class.
NO_CLASSES = frozenset({IGNORE_NAME, BACKGROUND_NAME})


def _counts(read: Iterable[Annotations]) -> Counter[str]:
    """Count the objects of each class in the files."""
    items = (item.class_name for annotations in read for item in annotations.items)
    return Counter(name for name in items if name not in NO_CLASSES)


def _counted(counts: Mapping[str, int]) -> str:
    return named(f"{name} ({count})" for name, count in sorted(counts.items()))


def require_some(read: Mapping[str, Annotations], classes: ClassTable) -> None:
    """Refuse files whose objects are all of other classes than those to keep."""
    there = _counts(read.values())
    if there and not set(there) & set(classes.names):
        first, other = classes.names[0], min(there)
        raise AnnotationError(
            f"got classes {', '.join(classes.names)}, of which no file has an object; expected "
            f"some of {_counted(there)}: name these, or merge them, as in --classes "
            f"{first}={other}; nothing was drawn"
        )


def require_not_emptied(
    store: SlideStore, name: str, annotations: Annotations, classes: ClassTable
) -> None:
    """Refuse to put an empty label in the place of one that has objects."""
    drawn = {*classes.names, *NO_CLASSES}
    if any(item.class_name in drawn for item in annotations.items):
        return
    if name not in store.label_names() or not (old := len(read_objects(store, name))):
        return
    there = _counts([annotations])
    got = f"objects of {_counted(there)} only" if there else "no object"
    wanted = f"some of class {' or '.join(classes.names)}" if classes.names else "some"
    raise AnnotationError(
        f"got {got}; expected {wanted}, as label {name!r} of the "
        f"slide has {old} objects and would be empty: it is kept; if nothing is on the slide, "
        f"delete {store.path / LABELS / name} first"
    )


def left_out(read: Mapping[str, Annotations], classes: ClassTable) -> list[str]:
    """Say which classes are in the files and are not drawn, and which are not in the files."""
    there = _counts(read.values())
    others = {name: count for name, count in there.items() if name not in classes.names}
    notes = [f"objects of classes that are not kept: {_counted(others)}"] if others else []
    if there and (missing := [name for name in classes.names if name not in there]):
        notes.append(f"no file has an object of class {', '.join(missing)}")
    return notes
