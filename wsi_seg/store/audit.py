"""Owns finding damaged and unfinished stores in a collection, and quarantining damaged ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wsi_seg.batch import require_none, run_each
from wsi_seg.counts import counted
from wsi_seg.errors import OutputError, StoreError, WsiSegError
from wsi_seg.progress import Progress
from wsi_seg.store.arrays import LevelArray
from wsi_seg.store.collection import Stores
from wsi_seg.store.digests import file_digest, group_files, read_digests
from wsi_seg.store.group import label_list
from wsi_seg.store.names import LABELS, QUARANTINE
from wsi_seg.store.shards import read_index
from wsi_seg.store.slide_store import open_image


@dataclass(slots=True)
class Audit:
    """Result of checking a collection.

    Parameters
    ----------
    sound
        Names of the stores without faults.
    faults
        Faults of each store, by name, one sentence each.
    files, nbytes
        Number and total size in bytes of the files whose digests match.
    quarantined
        New paths of damaged stores, by name.
    """

    sound: list[str] = field(default_factory=list)
    faults: dict[str, list[str]] = field(default_factory=dict)
    files: int = 0
    nbytes: int = 0
    quarantined: dict[str, Path] = field(default_factory=dict)

    @property
    def failures(self) -> dict[str, str]:
        """First fault of each store."""
        return {
            name: found[0] + (f" (and {len(found) - 1} more)" if len(found) > 1 else "")
            for name, found in self.faults.items()
        }

    def lines(self) -> list[str]:
        """Return the result as lines of text."""
        compared = (
            f"{counted(self.files, 'file')}, {self.nbytes / 1e6:.1f} MB compared with their digests"
        )
        moved = [f"{name} is now {path}" for name, path in self.quarantined.items()]
        return [f"{counted(len(self.sound), 'undamaged store')}: {compared}", *moved]

    def to_json(self) -> dict[str, object]:
        """Return the numbers as JSON values."""
        return {"stores": self.sound, "files": self.files, "bytes": self.nbytes}

    def require_whole(self) -> None:
        """Raise a `BatchError` with the first fault of each store, if there are faults."""
        require_none(self.failures, done=len(self.sound))


def audit_collection(collection: Stores, *, quarantine: bool = False, progress: Progress) -> Audit:
    """Compare every file of a collection with its digest, and check metadata and shard indices.

    Parameters
    ----------
    collection
        Slides or predictions, on a local disk.
    quarantine
        Whether to move stores with faults to ``.wsi_seg/quarantine`` in the collection, so that
        verbs ignore them, and the verb that made them makes them again.
    progress
        Advanced by stores.

    Returns
    -------
    Audit
        Faults of all stores; unfinished stores count as faults, but are never moved.
    """
    audit = Audit()

    def work(name: str) -> None:
        if found := _audit_store(collection.path / name, audit):
            audit.faults[name] = found
        else:
            audit.sound.append(name)
        if found and quarantine:
            audit.quarantined[name] = _put_aside(collection.path, name)

    batch = run_each(collection.names(), work, title="verify", unit="stores", progress=progress)
    for name, reason in batch.failures.items():
        audit.faults.setdefault(name, []).append(reason)
    for name in collection.unfinished():
        audit.faults.setdefault(name, []).append("is unfinished; repeat the command that writes it")
    return audit


def _audit_store(store: Path, audit: Audit) -> list[str]:
    found = _audit_group(store, audit)
    labels = store / LABELS
    if not labels.is_dir():
        return found
    try:
        listed = set(label_list(labels))
    except StoreError as error:
        return [*found, str(error)]
    there = {label.name for label in labels.iterdir() if label.is_dir()}
    found += [f"label {name} is listed and missing" for name in sorted(listed - there)]
    for name in sorted(there):
        found += _audit_group(labels / name, audit)
    return found


def _audit_group(group: Path, audit: Audit) -> list[str]:
    """Check one image or label, or the attributes of a prediction of class ids only."""
    try:
        arrays = list(open_image(group).arrays)
        digests = read_digests(group)
    except WsiSegError as error:
        return [str(error)]
    if digests is None:
        return [f"{group} has no digests: it is older than they are, or was not finished"]
    found = _compare(group, digests, audit)
    for array in arrays:
        found += _audit_shards(group, array, digests)
    return found


def _compare(group: Path, digests: Mapping[str, str], audit: Audit) -> list[str]:
    found = []
    for name, expected in digests.items():
        path = group / name
        try:
            digest = file_digest(path)
        except OSError as error:
            found.append(f"{path} cannot be read: {error.strerror or error}")
            continue
        if not digest:
            found.append(f"{path} is missing")
        elif digest != expected:
            found.append(f"{path} has changed since it was written: its digest differs")
        else:
            audit.files += 1
            audit.nbytes += path.stat().st_size
    return found


def _audit_shards(group: Path, array: LevelArray, digests: Mapping[str, str]) -> list[str]:
    """Check the index of each shard, and that each shard has a digest."""
    found = []
    level = array.path.relative_to(group).as_posix()
    rows, columns = array.grid
    for name in group_files(group):
        if not name.startswith(f"{level}/c/"):
            continue
        if name not in digests:
            found.append(f"{group / name} is not among the digests")
        try:
            read_index(group / name, rows * columns)
        except StoreError as error:
            found.append(str(error))
    return found


def _put_aside(collection: Path, name: str) -> Path:
    target = collection / QUARANTINE / name
    number = 1
    while target.exists():
        number += 1
        target = collection / QUARANTINE / f"{name}.{number}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        (collection / name).rename(target)
    except OSError as error:
        raise OutputError.of(f"{collection / name} to {target}", error, step="move") from error
    return target
