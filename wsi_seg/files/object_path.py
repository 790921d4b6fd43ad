"""Owns paths in object stores (``s3://``, ``gs://``, ``az://``; ``https://`` to read), by obstore.

They speak pathlib's language. An object is there whole or not at all, and there are no folders:
what is in a folder are the objects whose names begin with its own. So making a folder does
nothing, and neither does removing one that is empty.
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
from wsi_seg.files.object_store import READ_ONLY, SCHEMES, asking, client_of

if TYPE_CHECKING:
    from obstore import PutMode, UpdateVersion
    from obstore.store import ObjectStore

# Requests to one place at a time: enough to hide their latency.
REQUESTS = 16

# A write that was accepted and cannot be found is repeated this often.
_PUTS = 3

# The same where others write to the same object.
_UPDATES = 20


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """Size of an object in bytes, time of its writing, in ns since 1970, and its version."""

    st_size: int
    st_mtime_ns: int
    version: str | None

    @property
    def st_mtime(self) -> float:
        """Time of its writing in seconds since 1970."""
        return self.st_mtime_ns / 1e9


class ObjectPath(PurePosixPath):
    """Address of an object, or of a folder of objects; made by `place`.

    Text of it names no user, password or signature; they travel with it all the same.
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
        """What is before the colon."""
        return self.parts[0].removesuffix(":")

    @property
    def is_read_only(self) -> bool:
        """Whether it is of a web server."""
        return self.scheme in READ_ONLY

    @property
    def key(self) -> str:
        """Name of the object in its bucket, or on its server."""
        return "/".join(self.parts[2:])

    @property
    def _store(self) -> "ObjectStore":
        return client_of(self.scheme, self.parts[1])

    def exists(self) -> bool:
        """Whether there is an object of this name, or a folder with some."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether there is an object of this name."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Whether there are objects in a folder of this name; a web server does not say."""
        if self.is_read_only:
            return False
        import obstore

        with asking(str(self)):
            return any(obstore.list(self._store, self.key or None, chunk_size=1))

    def is_symlink(self) -> bool:
        """There are no links."""
        return False

    def stat(self) -> ObjectStat:
        """Size and time of the object."""
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
        """Content of the object, and its version: a number at Google, a tag elsewhere."""
        import obstore

        with asking(str(self)):
            found = obstore.get(self._store, self.key)
            version: UpdateVersion = {"e_tag": found.meta["e_tag"]}
            if (number := found.meta["version"]) is not None:
                version["version"] = number
            return bytes(found.bytes()), version

    def open(self, mode: str = "r", encoding: str | None = None) -> io.IOBase:
        """Open the object to read it, from memory."""
        if mode == "rb":
            return io.BytesIO(self.read_bytes())
        if mode != "r":
            raise AddressError(errno.EROFS, "is written whole or not at all", str(self))
        return io.StringIO(self.read_text(encoding or "utf-8"))

    def read_end(self, nbytes: int) -> tuple[bytes, int]:
        """Read the last bytes of the object, fewer where it has not so many; and its size."""
        import obstore

        if self.scheme in ("s3", "gs"):  # the others do not promise to count from the end
            with asking(str(self)):
                found = obstore.get(self._store, self.key, options={"range": {"suffix": nbytes}})
                return bytes(found.bytes()), found.meta["size"]
        size = self.stat().st_size
        begin = max(0, size - nbytes)
        return (self.read_spans([(begin, size - begin)])[0] if size else b""), size

    def read_spans(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read bytes of the object: offsets and sizes; neighbours come with one request."""
        import obstore

        starts, lengths = [list(values) for values in zip(*spans, strict=True)]
        with asking(str(self)):
            found = obstore.get_ranges(self._store, self.key, starts=starts, lengths=lengths)
        return [bytes(data) for data in found]

    def write_bytes(self, content: bytes) -> int:
        """Write the object, and look whether it is there; what was there is replaced."""
        for _ in range(_PUTS):
            tag = self.put(content, "overwrite")
            if self._is_kept(len(content), tag):
                return len(content)
        raise self._forgotten()

    def put(self, content: bytes, mode: "PutMode" = "overwrite") -> str | None:
        """Write the object and return its tag; what answers may not be what keeps: look later."""
        import obstore

        with asking(str(self), writes=True):
            put = obstore.put(self._store, self.key, content, mode=mode, use_multipart=False)
        return put["e_tag"]

    def _is_kept(self, nbytes: int, tag: str | None) -> bool:
        import obstore

        with suppress(FileNotFoundError), asking(str(self)):
            found = obstore.head(self._store, self.key)
            return found["size"] == nbytes and found["e_tag"] == tag
        return False

    def create(self, content: bytes) -> bool:
        """Write the object unless there is one of its name; look later whether it is there.

        Returns
        -------
        bool
            Whether it was written by this call.
        """
        from obstore.exceptions import AlreadyExistsError

        try:
            self.put(content, "create")
        except AlreadyExistsError:
            with suppress(FileNotFoundError):
                # A request may have been done, its answer lost, and the request repeated.
                return self.read_bytes() == content
            return False
        return True

    def append(self, content: bytes) -> None:
        """Write more lines at the end of the object, whoever else does so."""
        tried = False

        def more(before: bytes) -> bytes:
            nonlocal tried
            if tried and b"\n" + content in b"\n" + before:
                return before  # done, but the answer was lost, or another one has written more
            tried = True
            return before + content

        self.update(more)

    def update(self, change: Callable[[bytes], bytes]) -> bytes:
        """Replace the object by what is made of it, whoever else does so, and return that.

        ``change`` is given nothing where there is no object, and called again where another one
        was faster; nothing is written where it changes nothing.
        """
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        for _ in range(_UPDATES):
            mode: PutMode = "create"
            before = b""
            with suppress(FileNotFoundError):
                before, mode = self._read()
            if (after := change(before)) == before:
                return before
            with suppress(AlreadyExistsError, PreconditionError):  # another one was faster
                tag = self.put(after, mode)
                if self._is_kept(len(after), tag):
                    return after
        raise self._forgotten()

    def _forgotten(self) -> AddressError:
        return AddressError(
            errno.EIO, f"was accepted {_PUTS} times, and is not there afterwards", str(self)
        )

    def copy_to(self, target: "ObjectPath") -> None:
        """Copy the object within its bucket, without fetching it."""
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
        """Remove objects of this bucket, those that are still there."""
        import obstore

        with asking(str(self), writes=True):
            try:
                obstore.delete(self._store, [path.key for path in paths])
            except FileNotFoundError:  # where Google and Azure stop
                for path in paths if len(paths) > 1 else ():
                    self.remove_all([path])

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: a folder is there as soon as there is something in it."""

    def rmdir(self) -> None:
        """Do nothing: a folder is gone as soon as there is nothing in it."""

    def iterdir(self) -> Iterator["ObjectPath"]:
        """Objects and folders in this folder; a web server does not say."""
        if self.is_read_only:
            return
        files, folders = self._listed()
        yield from folders
        yield from files

    def _listed(self) -> tuple[list["ObjectPath"], list["ObjectPath"]]:
        import obstore

        with asking(str(self)):
            found = obstore.list_with_delimiter(self._store, self.key or None)
        files = [self / item["path"].rpartition("/")[2] for item in found["objects"]]
        folders = [self / name.rstrip("/").rpartition("/")[2] for name in found["common_prefixes"]]
        return files, folders

    def walk(self) -> Iterator[tuple["ObjectPath", list[str], list[str]]]:
        """Walk through the folders as `pathlib.Path.walk` does, from the top; listed at one go."""
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
            left += [folder / name for name in reversed(inside)]  # the caller may have cut some out

    def sizes(self) -> dict["ObjectPath", int]:
        """Every object below this folder, and its size in bytes."""
        import obstore

        root = self.with_segments(*self.parts[:2])
        with asking(str(self)):
            pages = obstore.list(self._store, self.key or None, chunk_size=1000)
            return {root / item["path"]: item["size"] for page in pages for item in page}

    def glob(self, pattern: str) -> Iterator["ObjectPath"]:
        """Objects that match a pattern with ``*`` for what is within a name."""
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
    """Path of a file or folder: the same, or, where it is an address, one that is read as such.

    Parameters
    ----------
    path
        Folder, file or address; pathlib may have folded the ``//`` of an address to ``/``.

    Returns
    -------
    Path
        An address is an `ObjectPath`, which has those methods of a path that stores need.

    Raises
    ------
    StoreError
        If it is an address of an unknown kind, or what reads addresses is not installed.

    Examples
    --------
    >>> str(place("store.zarr"))
    'store.zarr'
    >>> str(place("s3:/bucket/store.zarr") / "slide-1")  # doctest: +SKIP
    's3://bucket/store.zarr/slide-1'
    """
    if (
        not isinstance(path, str) and object_path(path) is not None
    ):  # its text would not have what grants access
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
    if scheme in READ_ONLY and "?" in rest:  # a signature goes with the host to all that is there
        (host, _, name), query = rest.partition("?")[0].partition("/"), rest.partition("?")[2]
        rest = f"{host}?{quote(query, safe='=&%')}/{name}"
    try:
        import obstore  # noqa: F401 (is it there?)
    except ImportError as error:
        raise StoreError(
            f"cannot read {without_secrets(str(path))}: {error}; install what it needs with "
            "pip install 'wsi-seg[remote]'"
        ) from error
    return cast("Path", ObjectPath(f"{scheme}:/{rest}"))


def object_path(path: PurePath) -> ObjectPath | None:
    """Take a path for what `place` made of an address; None if it is one of this machine."""
    return path if isinstance(path, ObjectPath) else None
