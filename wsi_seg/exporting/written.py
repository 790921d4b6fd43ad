"""Owns which files an export may replace: those that it wrote itself and nobody changed since."""

import contextlib
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

# File systems round times, some of them to two seconds.
_ROUNDED_S = 2.0


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
        size, changed = _state(path)
        write_atomic(_record(path), f"{size} {changed}")
        self.paths.append(path)


def _record(path: Path) -> Path:
    return path.parent / _RECORDS / path.name


def is_as_written(path: Path) -> bool:
    """Whether an export wrote what is at a path, or began to, and nobody changed it since."""
    try:
        text = _record(path).read_text(encoding="utf-8")
        if text == _BEGUN:
            return True
        size, changed = text.split()
        now = _state(path)
        return int(size) == now[0] and abs(float(changed) - now[1]) <= _ROUNDED_S
    except (OSError, ValueError):
        return False


def _state(path: Path) -> tuple[int, float]:
    """Bytes, and time of the last change, of a file or of all files in a folder."""
    stats = [file.stat() for file in (path, *path.rglob("*")) if file.is_file()]
    return sum(one.st_size for one in stats), max((one.st_mtime for one in stats), default=0.0)
