"""Owns stores behind an address such as ``s3://bucket/store.zarr``: opened by fsspec, read only.

``universal_pathlib`` gives addresses the methods of a path, so that everything above shards reads
them like folders; here are the two things it cannot give: ranges of bytes, and clear errors.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

from wsi_seg.address import is_remote
from wsi_seg.errors import OutputError, StoreError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from upath import UPath


def located(path: Path) -> Path:
    """Path under which a store is read: the same, or a `UPath` if it is an address.

    Parameters
    ----------
    path
        Folder, or address; pathlib may have folded its ``//`` to ``/``.

    Raises
    ------
    StoreError
        If what it takes to read addresses is not installed.
    """
    if is_address(path) or not is_remote(path):
        return path
    scheme, _, rest = str(path).partition(":")
    address = f"{scheme}://{rest.lstrip('/')}"
    try:
        from upath import UPath

        remote = UPath(address)
        remote.fs  # noqa: B018 - imports what the scheme needs
    except (ImportError, ValueError) as error:
        raise StoreError(
            f"cannot read {address}: {error}; install what it needs with "
            "pip install 'wsi-seg[remote]' (gs:// also needs gcsfs)"
        ) from error
    return cast("Path", remote)  # speaks pathlib's language as far as reading goes


def below(path: Path, *names: str) -> Path:
    """Path below a folder or address, whose names are no part of the address's own language.

    Raises
    ------
    StoreError
        If no address can hold a name.
    """
    if not is_address(path):
        return path.joinpath(*names)
    if getattr(path, "protocol", "") in {"http", "https"}:
        return path.joinpath(*(quote(name, safe="") for name in names))
    for name in names:
        if "::" in name:
            raise StoreError(
                f"cannot read {name!r} in {path}: '::' joins addresses; copy the store into a "
                "folder, or rename the slide"
            )
    return path.joinpath(*names)


def is_address(path: Path) -> bool:
    """Whether a path given by `located` is an address."""
    return not isinstance(path, Path)


def require_local(path: Path) -> None:
    """Refuse to write to an address.

    Raises
    ------
    OutputError
        If the path is an address.
    """
    if is_address(path) or is_remote(path):
        raise OutputError(
            f"cannot write {path}: stores behind an address are read only; write into a folder, "
            "then copy it there"
        )


def _file_system(path: Path) -> "AbstractFileSystem":
    return cast("UPath", path).fs


def _name(path: Path) -> str:
    return cast("UPath", path).path


def read_span(path: Path, begin: int, nbytes: int) -> bytes:
    """Read bytes of a file behind an address.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    StoreError
        If it cannot be read.
    """
    with readable(path):
        data: bytes = _file_system(path).cat_file(_name(path), start=begin, end=begin + nbytes)
    return data


def size_of(path: Path) -> int:
    """Size in bytes of a file behind an address.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    StoreError
        If it is not known.
    """
    with readable(path):
        size = _file_system(path).info(_name(path))["size"]
    if size is None:
        raise StoreError(f"cannot read {path}: its server does not report sizes")
    return int(size)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what servers and their libraries raise into one sentence."""
    from aiohttp import ClientConnectionError, ClientError

    try:
        yield
    except FileNotFoundError as error:
        if isinstance(error.__cause__, ClientConnectionError):  # fsspec calls this missing too
            raise StoreError(f"cannot read {path}: {error.__cause__}") from error
        raise
    except (OSError, ClientError, TimeoutError) as error:
        raise StoreError(f"cannot read {path}: {error}; check address and rights") from error
