"""Owns writing a result file whole or not at all."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from wsi_seg.atomic import partial_path
from wsi_seg.errors import OutputError


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary file to write; it takes the final name when the block ends well.

    Raises
    ------
    OutputError
        If the file or its folder cannot be written.
    """
    temporary = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
