"""Owns the files of a slide: their total size, and a digest that identifies the slide."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from wsi_seg.errors import SlideError
from wsi_seg.files.object_path import object_path
from wsi_seg.slides.find import volume_suffix
from wsi_seg.slides.slide import split_member

_END_BYTES = 1 << 16
# The digest of a slide in many files reads this many of them, and uses the sizes of the others.
_MAX_DIGESTED = 64


def source_bytes(path: Path) -> int:
    """Return the total size of a slide's files; a slice counts as its share of the volume.

    Files that cannot be read count as 0: opening the slide will report the error.
    """
    if (remote := object_path(path)) is not None:
        with suppress(OSError):
            return remote.stat().st_size
        return 0
    member = split_member(path)
    try:
        total = sum(file.stat().st_size for file in _files(path) if file.is_file())
        if member is None or member[0].is_dir():
            return total
        from wsi_seg.slides.volume import depth

        return total // max(1, depth(member[0]))
    except SlideError:
        return 0


def source_name(path: Path) -> str:
    """Return the name of the file or folder, with the slice in it: ``ct.nii.gz/z0012``."""
    member = split_member(path)
    return path.name if member is None else f"{member[0].name}/{path.name}"


def source_digest(path: Path) -> str:
    """Return the SHA-256 of the first and last 64 KiB, which identifies a slide at little cost.

    For a slide in several files, it covers their names and sizes, and both ends of the first 64;
    for a slice, its number as well.
    """
    digest = hashlib.sha256()
    if (remote := object_path(path)) is not None:
        end, size = remote.read_end(_END_BYTES)
        digest.update(remote.read_spans([(0, min(size, _END_BYTES))])[0] if size else b"")
        digest.update(end)
        return digest.hexdigest()
    files = list(_files(path))
    if split_member(path):
        digest.update(path.name.encode())
    for number, file in enumerate(files):
        if len(files) > 1:
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        if number < _MAX_DIGESTED:
            _add_ends(digest, file)
    return digest.hexdigest()


def _add_ends(digest: "hashlib._Hash", path: Path) -> None:
    with path.open("rb") as file:
        digest.update(file.read(_END_BYTES))
        file.seek(max(0, path.stat().st_size - _END_BYTES))
        digest.update(file.read(_END_BYTES))


def _files(path: Path) -> Iterator[Path]:
    """Yield the files that hold a slide's pixels, sorted."""
    member = split_member(path)
    if member is not None and member[0].is_dir():
        from wsi_seg.slides.series import slice_file

        yield slice_file(*member)
    elif member is not None:
        yield from _volume_files(member[0])
    elif path.is_dir():
        yield from sorted(file for file in path.rglob("*") if file.is_file())
    else:
        yield path


def _volume_files(volume: Path) -> Iterator[Path]:
    yield volume
    if volume_suffix(volume) == ".mhd":
        yield from (
            file
            for ending in (".raw", ".zraw", ".RAW")
            if (file := volume.with_suffix(ending)).is_file()
        )
