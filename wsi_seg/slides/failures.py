"""Owns translating the exceptions of parsers and decoders to a SlideError that names the file."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wsi_seg.errors import SlideError, WsiSegError

# What parsers and decoders raise for malformed files; imagecodecs raises RuntimeErrors. A tag of
# the wrong type makes our int(...) raise TypeError, and a missing one AttributeError.
_MALFORMED: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


@contextmanager
def translate_errors(
    path: Path, what: str, expected: str, *, also: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Translate any exception raised while parsing a damaged file to SlideError.

    Parameters
    ----------
    path
        The file that is parsed.
    what
        Start of the message after the path, such as ``cannot be read as DICOM: ``.
    expected
        What the file should be, such as ``a readable TIFF``.
    also
        Exception types of a library, in addition to Python's own.
    """
    malformed = _MALFORMED + also
    try:
        yield
    except SlideError:
        raise
    except FileNotFoundError as error:
        raise SlideError(
            f"{path}: there is no such file or folder; expected a slide, or a folder of slides; "
            "check the spelling"
        ) from error
    except OSError as error:
        raise SlideError(f"{path}: cannot be read: {error.strerror or error}") from error
    except WsiSegError as error:
        raise SlideError(f"{path}: {what}{error}") from error
    except malformed as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SlideError(
            f"{path}: {what}{reason}; expected {expected}; check the file or copy it again"
        ) from error
