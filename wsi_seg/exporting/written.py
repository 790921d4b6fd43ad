"""Owns which files an export may replace: those written by an export and unchanged since."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from wsi_seg.errors import OutputError
from wsi_seg.files.atomic import write_atomic

# Folder next to the files, with one record of each file's digest, so that several exports may write
# to the same folder at the same time.
_RECORDS = ".exported"

# Content of a record while its file is being written, so that a killed export can be repeated.
_INCOMPLETE = "begun"


class Written:
    """Files written by an export, which does not replace files of other origin.

    Parameters
    ----------
    overwrite
        Whether any file may be replaced.
    """

    def __init__(self, *, overwrite: bool) -> None:
        self.overwrite = overwrite
        self.paths: list[Path] = []

    def require_free(self, path: Path) -> None:
        """Raise an `OutputError` if an export may not replace the file or folder at a path."""
        if self.overwrite or not path.exists() or is_as_written(path):
            return
        raise OutputError(
            f"{path} exists already, and was not written by an export or was changed since; "
            "expected another folder, such as found/, or --overwrite, which replaces it"
        )

    @contextlib.contextmanager
    def new(self, path: Path) -> Iterator[Path]:
        """Yield a path to write a file or folder to, and record its digest afterwards.

        Raises
        ------
        OutputError
            If there is a file that an export may not replace.
        """
        self.require_free(path)
        write_atomic(record_of(path), _INCOMPLETE)
        yield path
        write_atomic(record_of(path), _digest(path))
        self.paths.append(path)


def record_of(path: Path) -> Path:
    """Return the file that records the digest of an exported file or folder."""
    return path.parent / _RECORDS / path.name


def is_as_written(path: Path) -> bool:
    """Return whether an export wrote a file or folder, or began to, and it is unchanged since."""
    try:
        return record_of(path).read_text(encoding="utf-8") in {_INCOMPLETE, _digest(path)}
    except (OSError, ValueError):
        return False


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file; for a folder, of the names and digests of all its files."""
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file())
        lines = [f"{file.relative_to(path).as_posix()} {_digest(file)}\n" for file in inside]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
