"""Owns which files an export may replace: those that it wrote itself and nobody changed since."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from wsi_seg.atomic import write_atomic
from wsi_seg.errors import OutputError

# Folder, next to the files, that keeps how each was when it was written; one file for each, so that
# several exports may write to a folder at the same time.
_RECORDS = ".exported"

# What a record says from before a file is written until it is whole, so that an export that was
# killed in between can be repeated.
_BEGUN = "begun"


class Written:
    """Files that an export writes, none of them in the place of somebody else's.

    Parameters
    ----------
    overwrite
        Whether any file may be replaced.
    """

    def __init__(self, *, overwrite: bool) -> None:
        self.overwrite = overwrite
        self.paths: list[Path] = []

    def require_free(self, path: Path) -> None:
        """Raise an `OutputError` if the path has what an export did not write, or not so."""
        if self.overwrite or not path.exists() or is_as_written(path):
            return
        raise OutputError(
            f"{path} is there already, and export did not write it, or it was changed since; "
            "expected another folder, such as found/, or --overwrite, which replaces it"
        )

    @contextlib.contextmanager
    def new(self, path: Path) -> Iterator[Path]:
        """Give a path to write a file or a folder to, and note that it is ours.

        Raises
        ------
        OutputError
            If somebody else's file is there.
        """
        self.require_free(path)
        write_atomic(_record(path), _BEGUN)
        yield path
        write_atomic(_record(path), _digest(path))
        self.paths.append(path)


def _record(path: Path) -> Path:
    return path.parent / _RECORDS / path.name


def is_as_written(path: Path) -> bool:
    """Whether an export wrote what is at a path, or began to, and nobody changed it since."""
    try:
        return _record(path).read_text(encoding="utf-8") in {_BEGUN, _digest(path)}
    except (OSError, ValueError):
        return False


def _digest(path: Path) -> str:
    """SHA-256 of a file; of a folder, that of the names and digests of all files in it."""
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file())
        lines = [f"{file.relative_to(path).as_posix()} {_digest(file)}\n" for file in inside]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
