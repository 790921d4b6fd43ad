"""Owns checking which objects of annotation files are drawn, and that no label is emptied."""

from collections import Counter
from collections.abc import Iterable, Mapping

from wsi_seg.annotations import Annotations
from wsi_seg.classes import ClassTable
from wsi_seg.counts import counted, list_names
from wsi_seg.errors import AnnotationError
from wsi_seg.masks.objects import read_objects
from wsi_seg.masks.rasterize import SPECIAL_IDS
from wsi_seg.store import SlideStore
from wsi_seg.store.names import LABELS


def _counts(read: Iterable[Annotations]) -> Counter[str]:
    """Count the objects of each class."""
    items = (item.class_name for annotations in read for item in annotations.items)
    return Counter(name for name in items if name not in SPECIAL_IDS)


def _list_counts(counts: Mapping[str, int]) -> str:
    return list_names(f"{name} ({count})" for name, count in sorted(counts.items()))


def require_some(read: Mapping[str, Annotations], classes: ClassTable) -> None:
    """Refuse files in which no object has one of the classes to keep."""
    there = _counts(read.values())
    if there and not set(there) & set(classes.names):
        first, other = classes.names[0], min(there)
        raise AnnotationError(
            f"got classes {', '.join(classes.names)}, of which the files have no object; expected "
            f"some of {_list_counts(there)}; name these, or merge them, as in --classes "
            f"{first}={other}; nothing was drawn"
        )


def require_not_emptied(
    store: SlideStore, name: str, annotations: Annotations, classes: ClassTable
) -> None:
    """Refuse to replace a label that has objects by an empty one."""
    drawn = {*classes.names, *SPECIAL_IDS}
    if any(item.class_name in drawn for item in annotations.items):
        return
    if name not in store.label_names() or not (old := len(read_objects(store, name))):
        return
    there = _counts([annotations])
    got = f"objects of {_list_counts(there)} only" if there else "no object"
    expected = f"some of class {' or '.join(classes.names)}" if classes.names else "some"
    raise AnnotationError(
        f"got {got}; expected {expected}, because label {name!r} of the slide has "
        f"{counted(old, 'object')} and would be emptied; it is unchanged; if the slide has no "
        f"objects, delete {store.path / LABELS / name} first"
    )


def unused_classes(read: Mapping[str, Annotations], classes: ClassTable) -> list[str]:
    """Report classes in the files that are not drawn, and classes that no file has."""
    there = _counts(read.values())
    others = {name: count for name, count in there.items() if name not in classes.names}
    notes = [f"objects of classes that are not kept: {_list_counts(others)}"] if others else []
    if there and (missing := [name for name in classes.names if name not in there]):
        notes.append(f"no file has an object of class {', '.join(missing)}")
    return notes
