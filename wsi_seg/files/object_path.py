"""Owns obstore paths (``s3://``, ``gs://``, ``az://``; ``https://`` read-only) with a pathlib API.

Writes of objects are atomic. Object stores have no folders, only objects whose keys share a prefix,
so creating or removing an empty folder does nothing.
"""

import errno
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

from wsi_seg.errors import AddressError, StoreError
from wsi_seg.files.address import is_remote, without_secrets
from wsi_seg.files.object_store import READ_ONLY, SCHEMES, asking, client_of, require_short

if TYPE_CHECKING:
    from obstore import PutMode, UpdateVersion
    from obstore.store import ObjectStore

# Concurrent requests to one object store: enough to hide their latency.
REQUESTS = 16

# Attempts to write an object that does not exist afterwards; more if other processes write it too.
_PUTS, _UPDATES = 3, 20


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """Size of an object in bytes, modification time in ns since 1970, and version (ETag)."""

    st_size: int
    st_mtime_ns: int
    version: str | None

    @property
    def st_mtime(self) -> float:
        """Modification time in seconds since 1970."""
        return self.st_mtime_ns / 1e9


class ObjectPath(PurePosixPath):
    """Address of an object or a folder of objects, created by `place`.

    ``str`` of it shows no user, password or signature; requests still use them.
    """

    def __str__(self) -> str:
        scheme, _, rest = super().__str__().partition(":/")
        if scheme not in SCHEMES:
            return super().__str__()
        host, _, name = rest.lstrip("/").partition("/")
        shown = host.rpartition("@")[2].partition("?")[0]
        return f"{scheme}://{shown}/{name}" if name else f"{scheme}://{shown}"

    def __fspath__(self) -> str:
        raise TypeError(f"{self} is an address, not a file of this machine")

    @property
    def scheme(self) -> str:
        """Part before the colon, such as ``s3``."""
        return self.parts[0].removesuffix(":")

    @property
    def is_read_only(self) -> bool:
        """Whether the address is on a web server."""
        return self.scheme in READ_ONLY

    @property
    def key(self) -> str:
        """Key of the object in its bucket, or path on its server."""
        return "/".join(self.parts[2:])

    @property
    def _store(self) -> "ObjectStore":
        return client_of(self.scheme, self.parts[1])

    def exists(self) -> bool:
        """Return whether an object or a folder of objects exists at this address."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Return whether an object exists at this address."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Return whether the folder contains objects; always False for web servers."""
        if self.is_read_only:
            return False
        import obstore

        with asking(str(self)):
            return any(obstore.list(self._store, self.key or None, chunk_size=1))

    def is_symlink(self) -> bool:
        """Return False: object stores have no links."""
        return False

    def stat(self) -> ObjectStat:
        """Return size, modification time and version of the object."""
        import obstore

        if not self.key:
            raise FileNotFoundError(errno.ENOENT, "is a bucket, not an object", str(self))
        with asking(str(self)):
            found = obstore.head(self._store, self.key)
        time_ns = int(found["last_modified"].timestamp() * 1e9)
        return ObjectStat(found["size"], time_ns, found["e_tag"])

    def read_bytes(self) -> bytes:
        """Read the object."""
        return self._read()[0]

    def read_text(self, encoding: str = "utf-8") -> str:
        """Read the object as text."""
        return self.read_bytes().decode(encoding)

    def _read(self) -> "tuple[bytes, UpdateVersion]":
        """Return content and version of the object: generation number on GCS, ETag elsewhere."""
        import obstore

        with asking(str(self)):
            found = obstore.get(self._store, self.key)
            version: UpdateVersion = {"e_tag": found.meta["e_tag"]}
            if (number := found.meta["version"]) is not None:
                version["version"] = number
            return bytes(found.bytes()), version

    def open(self, mode: str = "r", encoding: str | None = None) -> io.IOBase:
        """Read the object into memory and return it as a file object."""
        if mode == "rb":
            return io.BytesIO(self.read_bytes())
        if mode != "r":
            raise AddressError(errno.EROFS, "is written whole or not at all", str(self))
        return io.StringIO(self.read_text(encoding or "utf-8"))

    def read_end(self, nbytes: int) -> tuple[bytes, int]:
        """Return the last ``nbytes`` bytes of the object, fewer if it is smaller, and its size."""
        import obstore

        if self.scheme in ("s3", "gs"):  # others may not support suffix ranges
            with asking(str(self)):
                found = obstore.get(self._store, self.key, options={"range": {"suffix": nbytes}})
                return bytes(found.bytes()), found.meta["size"]
        size = self.stat().st_size
        begin = max(0, size - nbytes)
        return (self.read_spans([(begin, size - begin)])[0] if size else b""), size

    def read_spans(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read byte ranges, given as (offset, size); nearby ranges are merged into one request."""
        import obstore

        starts, lengths = [list(values) for values in zip(*spans, strict=True)]
        with asking(str(self)):
            found = obstore.get_ranges(self._store, self.key, starts=starts, lengths=lengths)
        return [bytes(data) for data in found]

    def write_bytes(self, content: bytes) -> int:
        """Write or replace the object, and check that it exists afterwards."""
        for _ in range(_PUTS):
            tag = self.put(content, "overwrite")
            if self.is_kept(len(content), tag):
                return len(content)
        raise self._forgotten(_PUTS)

    def put(self, content: bytes, mode: "PutMode" = "overwrite") -> str | None:
        """Write the object and return its ETag, without checking that it exists afterwards."""
        import obstore

        require_short(self.key, str(self))
        with asking(str(self), writes=True):
            put = obstore.put(self._store, self.key, content, mode=mode, use_multipart=False)
        return put["e_tag"]

    def is_kept(self, nbytes: int, tag: str | None) -> bool:
        """Return whether the object exists with this size in bytes and this ETag."""
        with suppress(FileNotFoundError):
            found = self.stat()
            return (found.st_size, found.version) == (nbytes, tag)
        return False

    def create(self, content: bytes) -> bool:
        """Write the object unless it exists, without checking that it exists afterwards.

        Returns
        -------
        bool
            Whether this call wrote it.
        """
        from obstore.exceptions import AlreadyExistsError

        try:
            self.put(content, "create")
        except AlreadyExistsError:
            with suppress(FileNotFoundError):
                # The request may have succeeded, its response been lost, and been retried.
                return self.read_bytes() == content
            return False
        return True

    def append(self, content: bytes) -> None:
        """Append lines to the object, even if other processes append at the same time."""
        tried = False

        def more(before: bytes) -> bytes:
            nonlocal tried
            if tried and b"\n" + content in b"\n" + before:
                return before  # written, but the response was lost or others wrote after it
            tried = True
            return before + content

        self.update(more)

    def update(self, change: Callable[[bytes], bytes]) -> bytes:
        """Replace the content by ``change(content)`` with optimistic locking, and return it.

        ``change`` receives ``b""`` if the object does not exist, and is called again if another
        process wrote in the meantime. If it returns its argument, nothing is written.
        """
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        for _ in range(_UPDATES):
            mode: PutMode = "create"
            before = b""
            with suppress(FileNotFoundError):
                before, mode = self._read()
            if (after := change(before)) == before:
                return before
            with suppress(AlreadyExistsError, PreconditionError):  # another process wrote first
                tag = self.put(after, mode)
                if self.is_kept(len(after), tag):
                    return after
        raise self._forgotten(_UPDATES)

    def _forgotten(self, tries: int) -> AddressError:
        return AddressError(
            errno.EIO, f"was accepted {tries} times, and is not there afterwards", str(self)
        )

    def copy_to(self, target: "ObjectPath") -> None:
        """Copy the object within its bucket, without downloading it."""
        import obstore

        with asking(str(self)):
            obstore.copy(self._store, self.key, target.key)

    def touch(self) -> None:
        """Write an empty object."""
        self.write_bytes(b"")

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        if not missing_ok and not self.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        self.remove_all([self])

    def remove_all(self, paths: Sequence["ObjectPath"]) -> None:
        """Remove objects of this bucket; those that do not exist are ignored."""
        import obstore

        with asking(str(self), writes=True):
            try:
                obstore.delete(self._store, [path.key for path in paths])
            except FileNotFoundError:  # GCS and Azure stop at the first one missing
                for path in paths if len(paths) > 1 else ():
                    self.remove_all([path])

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: a folder exists once it contains an object."""

    def rmdir(self) -> None:
        """Do nothing: a folder no longer exists once it is empty."""

    def iterdir(self) -> Iterator["ObjectPath"]:
        """Iterate over folders, then objects, in this folder; empty for web servers."""
        if self.is_read_only:
            return
        import obstore

        with asking(str(self)):
            found = obstore.list_with_delimiter(self._store, self.key or None)
        for name in found["common_prefixes"]:
            yield self / name.rstrip("/").rpartition("/")[2]
        for item in found["objects"]:
            yield self / item["path"].rpartition("/")[2]

    def walk(self) -> Iterator[tuple["ObjectPath", list[str], list[str]]]:
        """Walk top-down like `pathlib.Path.walk`, with one listing of all objects."""
        depth, folders = len(self.parts), {self: (set[str](), set[str]())}
        for path in self.sizes():
            names, folder = path.parts[depth:], self
            for name in names[:-1]:
                folders[folder][0].add(name)
                folder /= name
                folders.setdefault(folder, (set(), set()))
            folders[folder][1].add(names[-1])
        left = [self]
        while left:
            folder = left.pop()
            inside = sorted(folders[folder][0])
            yield folder, inside, sorted(folders[folder][1])
            left += [folder / name for name in reversed(inside)]  # the caller may have removed some

    def sizes(self) -> dict["ObjectPath", int]:
        """Return all objects below this folder with their sizes in bytes."""
        return {path: size for path, (size, _) in self.versions().items()}

    def versions(self) -> dict["ObjectPath", tuple[int, str | None]]:
        """Return all objects below this folder with their sizes in bytes and their ETags."""
        import obstore

        root = self.with_segments(*self.parts[:2])
        with asking(str(self)):
            pages = obstore.list(self._store, self.key or None, chunk_size=1000)
            return {
                root / item["path"]: (item["size"], item["e_tag"])
                for page in pages
                for item in page
            }

    def glob(self, pattern: str) -> Iterator["ObjectPath"]:
        """Find paths that match a pattern, in which ``*`` matches within one path component."""
        first, _, rest = pattern.partition("/")
        if "*" not in first:
            inside = [self / first]
        else:
            wanted = re.compile(".*".join(map(re.escape, first.split("*"))))
            inside = [path for path in self.iterdir() if wanted.fullmatch(path.name)]
        for path in inside:
            if rest:
                yield from path.glob(rest)
            elif "*" in first or path.is_file():
                yield path


def place(path: Path | str) -> Path:
    """Return a path, or an `ObjectPath` if it is an address.

    Parameters
    ----------
    path
        Folder, file or address; pathlib may have collapsed the ``//`` of an address to ``/``.

    Returns
    -------
    Path
        Local path, or `ObjectPath`, which implements the methods that stores need.

    Raises
    ------
    StoreError
        If the scheme of the address is unknown, or obstore is not installed.

    Examples
    --------
    >>> str(place("store.zarr"))
    'store.zarr'
    >>> str(place("s3:/bucket/store.zarr") / "slide-1")  # doctest: +SKIP
    's3://bucket/store.zarr/slide-1'
    """
    if (
        not isinstance(path, str) and object_path(path) is not None
    ):  # str() would drop its credentials
        return path
    if not is_remote(path := Path(path)):
        return path
    scheme, _, rest = str(path).partition(":")
    rest = rest.lstrip("/")
    if scheme not in SCHEMES or not rest:
        raise StoreError(
            f"got the address {without_secrets(str(path))}; expected a folder, s3://BUCKET/..., "
            "gs://..., az://... or https://..."
        )
    if scheme in READ_ONLY and "?" in rest:  # one signature for all paths on a host
        (host, _, name), query = rest.partition("?")[0].partition("/"), rest.partition("?")[2]
        rest = f"{host}?{quote(query, safe='=&%')}/{name}"
    try:
        import obstore  # noqa: F401 (is it installed?)
    except ImportError as error:
        raise StoreError(
            f"cannot read {without_secrets(str(path))}: {error}; install what it needs with "
            "pip install 'wsi-seg[remote]'"
        ) from error
    return cast("Path", ObjectPath(f"{scheme}:/{rest}"))


def object_path(path: PurePath) -> ObjectPath | None:
    """Return the path if it is an `ObjectPath`, and None if it is local."""
    return path if isinstance(path, ObjectPath) else None
