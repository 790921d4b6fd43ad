"""Owns writing a result file whole or not at all."""

import contextlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from wsi_seg.errors import OutputError

# Bytes that the name of a file may have on all usual file systems.
_LONGEST = 255


def file_name(slide: str, suffix: str) -> str:
    """Name of a slide's file: its own, or one cut to what file systems take.

    Examples
    --------
    >>> file_name("a", ".png"), len(file_name("a" * 255, ".png"))
    ('a.png', 255)
    """
    whole = slide + suffix
    if len(os.fsencode(whole)) <= _LONGEST:
        return whole
    end = f"~{zlib.crc32(os.fsencode(slide)):08x}{suffix}"
    cut = os.fsencode(slide)[: _LONGEST - len(os.fsencode(end))]
    return cut.decode(errors="ignore") + end


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary file to write; it takes the final name when the block ends well.

    Raises
    ------
    OutputError
        If the file or its folder cannot be written.
    """
    # A digest, because the name itself may be as long as a file system takes.
    temporary = path.with_name(f".{zlib.crc32(path.name.encode()):08x}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
