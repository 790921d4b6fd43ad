"""Owns shard files: encoded chunks, followed by an index of their offsets and sizes.

The format is the zarr v3 codec ``sharding_indexed`` with the index at the end: one pair of
little-endian uint64 ``(offset, nbytes)`` for each chunk in C order, both ``2^64 - 1`` for a missing
chunk, then the crc32c of these pairs.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import OutputError, StoreError
from wsi_seg.files.atomic import write_whole
from wsi_seg.files.object_folder import Objects
from wsi_seg.files.object_path import object_path
from wsi_seg.files.shared import opened_again

MISSING = np.iinfo(np.uint64).max
_PAIR_BYTES = 16
_CRC_BYTES = 4
# Trailing bytes of a file that its digest contains.
END_BYTES = 4


def write_shard(
    path: Path, chunks: Sequence[bytes | None], objects: Objects | None = None
) -> int | None:
    """Write one shard atomically: temporary file, fsync, rename; or one object.

    Parameters
    ----------
    path
        File of the shard; its folder is created if missing.
    chunks
        Encoded chunks in C order, None for missing ones. If all are missing, no file is written,
        and an existing one is removed.
    objects
        Receives the object of a shard in an object store, for `put_all`; None to write it now.

    Returns
    -------
    int or None
        Its `shard_checksum`, or None if no file was written.

    Raises
    ------
    OutputError
        If the file cannot be written, for example because the disk is full.
    """
    is_empty = all(chunk is None for chunk in chunks)
    data = b"".join(part for part in (*chunks, _pack_index(chunks)) if part is not None)
    remote = object_path(path)
    try:
        if remote is not None and objects is not None:
            objects[remote] = None if is_empty else data
        elif is_empty:
            path.unlink(missing_ok=True)
        elif remote is not None:
            remote.write_bytes(data)
        else:
            write_whole(path, data)
    except OSError as error:
        raise OutputError.of(path, error) from error
    return None if is_empty else _joined(*checksum_and_end_of(data))


def checksum_and_end_of(content: bytes) -> tuple[int, bytes]:
    """Return the crc32c and the last `END_BYTES` bytes of a file's content."""
    return google_crc32c.value(content), content[-END_BYTES:]


def checksum_and_end(path: Path) -> tuple[int, bytes] | None:
    """Read a file, and return its crc32c and last `END_BYTES` bytes; None if it does not exist."""
    checksum, end = 0, b""
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                checksum = google_crc32c.extend(checksum, block)
                end = (end + block[-END_BYTES:])[-END_BYTES:]
    except FileNotFoundError:
        return None
    return checksum, end


def shard_checksum(path: Path) -> int | None:
    """Read a shard and return its checksum, or None if the file does not exist.

    The checksum is the crc32c of the file followed by its last 4 bytes, as one integer.
    """
    found = checksum_and_end(path)
    return None if found is None else _joined(*found)


def _joined(crc: int, end: bytes) -> int:
    return crc << 8 * END_BYTES | int.from_bytes(end)


class Shard:
    """Reader of one shard; a context manager that closes its file. Not thread-safe.

    Parameters
    ----------
    path
        File of the shard, which may not exist; opened at the first read.
    count
        Number of chunks per shard.
    """

    def __init__(self, path: Path, count: int) -> None:
        self.path, self._count = path, count
        self._descriptor: int | None = None
        self._remote = object_path(path)
        self._fetched: dict[tuple[int, int], bytes] = {}
        self._version: tuple[int, ...] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def index(self) -> NDArray[np.uint64] | None:
        """Read and verify the index.

        Returns
        -------
        NDArray[np.uint64] or None
            ``(count, 2)`` offsets and sizes in bytes; None if the file does not exist, so that all
            chunks are missing.

        Raises
        ------
        StoreError
            If the file is too short, the checksum is wrong, or a chunk is outside the file.
        """
        size = self._count * _PAIR_BYTES + _CRC_BYTES
        try:
            data, total = self._end(size)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(error) from error
        data = data if total >= size else b""
        return _parse_index(data, self._count, body=total - size, path=self.path)

    def fetch(self, spans: Sequence[tuple[int, int]]) -> None:
        """Prefetch chunks, given by (offset, size), from an object store with one request."""
        if self._remote is None or not spans:
            return
        try:
            self._fetched = dict(zip(spans, self._remote.read_spans(spans), strict=True))
        except OSError as error:
            raise self._unreadable(error) from error

    def read(self, offset: int, nbytes: int) -> bytes:
        """Read one encoded chunk.

        Raises
        ------
        StoreError
            If the file cannot be read or ends too early.
        """
        try:
            data = self._span(offset, nbytes)
        except OSError as error:
            raise self._unreadable(error) from error
        if len(data) != nbytes:
            raise StoreError(
                f"shard {self.path}: got {len(data)} bytes at offset {offset}; expected {nbytes}; "
                "tile the slide again with --overwrite"
            )
        return data

    def _end(self, nbytes: int) -> tuple[bytes, int]:
        """Return the last ``nbytes`` bytes of the file, and its size."""
        if self._remote is not None:
            return self._remote.read_end(nbytes)
        total = self._of_open_file(lambda descriptor: os.fstat(descriptor).st_size)
        return self._span(max(0, total - nbytes), nbytes), total

    def _span(self, offset: int, nbytes: int) -> bytes:
        if self._remote is None:
            return self._of_open_file(lambda descriptor: os.pread(descriptor, nbytes, offset))
        kept = self._fetched.pop((offset, nbytes), None)
        return self._remote.read_spans([(offset, nbytes)])[0] if kept is None else kept

    def _of_open_file[Found](self, read: Callable[[int], Found]) -> Found:
        """Read from the file, reopening it if its NFS handle is stale."""

        def again() -> Found:
            try:
                return read(self._opened())
            except OSError:
                self._close()
                raise

        return opened_again(again)

    def _opened(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY)
            stat = os.fstat(self._descriptor)
            version = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if self._version not in (None, version):  # its index is outdated
                raise StoreError(
                    f"shard {self.path} was replaced while it was read; repeat the command"
                )
            self._version = version
        return self._descriptor

    def _unreadable(self, error: OSError) -> StoreError:
        return StoreError(f"cannot read shard {self.path}: {error.strerror or error}")


def read_index(path: Path, count: int) -> NDArray[np.uint64] | None:
    """Read and verify the index of a shard; see `Shard.index`."""
    with Shard(path, count) as shard:
        return shard.index()


def _pack_index(chunks: Sequence[bytes | None]) -> bytes:
    sizes = np.array([0 if chunk is None else len(chunk) for chunk in chunks], dtype=np.uint64)
    index = np.empty((len(chunks), 2), dtype="<u8")
    index[:, 0] = np.cumsum(sizes) - sizes
    index[:, 1] = sizes
    index[[chunk is None for chunk in chunks]] = MISSING
    packed = index.tobytes()
    checksum: int = google_crc32c.value(packed)
    return packed + checksum.to_bytes(_CRC_BYTES, "little")


def _parse_index(data: bytes, count: int, *, body: int, path: Path) -> NDArray[np.uint64]:
    pairs, crc = data[: count * _PAIR_BYTES], data[count * _PAIR_BYTES :]
    if not data or google_crc32c.value(pairs) != int.from_bytes(crc, "little"):
        raise StoreError(
            f"shard {path} is damaged: its index does not match its checksum; tile the slide "
            "again with --overwrite"
        )
    index = np.frombuffer(pairs, dtype="<u8").reshape(count, 2).astype(np.uint64)
    present = index[index[:, 0] != MISSING]
    # Compared separately first, because the sum could overflow.
    if present.size and (present.max() > body or int((present[:, 0] + present[:, 1]).max()) > body):
        raise StoreError(f"shard {path} is damaged: its index names bytes past its end")
    return index
