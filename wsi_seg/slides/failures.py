"""Owns turning every way in which parsing a file fails into one SlideError that names it."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wsi_seg.errors import SlideError, WsiSegError

# What parsers and decoders raise on malformed files; those of imagecodecs are RuntimeErrors. A tag
# of a wrong type makes our own int(...) raise TypeError, and one that is absent AttributeError.
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
    """Raise SlideError instead of whatever parsing a damaged file raises.

    Parameters
    ----------
    path
        The file that is parsed.
    what
        What is wrong then, as the beginning of a sentence, such as ``cannot be read as DICOM: ``.
    expected
        What the file should be, such as ``a readable TIFF``.
    also
        Types of errors that a library raises besides Python's own.
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
