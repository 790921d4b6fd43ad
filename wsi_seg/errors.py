"""Owns all exception types of wsi_seg.

::

    WsiSegError
    ├── ConfigError (ValueError)             a recipe, option or class list is wrong
    ├── SlideError (ValueError)              a file cannot be read as a slide
    │   └── UnsupportedSlideError            it is a slide of an unsupported kind
    │       └── UndecidedSlideError          only the user can decide how to read it
    ├── RegionError (IndexError)             a region is outside its level
    ├── ResolutionError (ValueError)         mpp is missing, or does not fit the model
    ├── StoreError (ValueError)              a store is damaged, or not written by wsi_seg
    │   ├── StoreNotFoundError (FileNotFoundError)
    │   └── StoreIncompleteError             a store was not completely written
    ├── AnnotationError (ValueError)         an annotation file or feature is wrong
    ├── CheckpointError (ValueError)         a model file is missing, damaged or unsafe
    ├── TrainingError (RuntimeError)         training cannot continue
    ├── OutputError (OSError)                a result cannot be written to its path
    ├── AddressError (OSError)               an object store fails, or denies access
    ├── BusyError (RuntimeError)             another command is writing there
    ├── MissingLibraryError (ImportError)    an optional library is not installed
    └── BatchError (RuntimeError)            some slides failed; the others are done

Each message states what was got, what was expected and what to do, naming slide and region. Each
type also inherits from a builtin exception, so that ``except ValueError`` works for callers.
"""

import errno
from collections.abc import Mapping
from typing import Self

from wsi_seg.counts import counted

# Errors of a full disk (or a limit on the size of files), and of missing permission.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


class WsiSegError(Exception):
    """Base of all exceptions of wsi_seg."""


class ConfigError(WsiSegError, ValueError):
    """A recipe, an option or a class list is not valid."""


class SlideError(WsiSegError, ValueError):
    """A file cannot be read as a slide."""


class UnsupportedSlideError(SlideError):
    """A file is a slide of an unsupported kind."""


class UndecidedSlideError(UnsupportedSlideError):
    """Only the user can decide how to read a file: which of its images, or at which pixel size."""


class RegionError(WsiSegError, IndexError):
    """A region is outside its level."""


class ResolutionError(WsiSegError, ValueError):
    """The mpp of a slide is missing, or does not suit the model."""


class StoreError(WsiSegError, ValueError):
    """A store is damaged, or was not written by wsi_seg."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no store at the given path."""

    # OSError would format its arguments as (errno, strerror).
    __str__ = Exception.__str__


class StoreIncompleteError(StoreError):
    """A store was not completely written."""


class AnnotationError(WsiSegError, ValueError):
    """An annotation file, or a feature in it, is not valid."""


class CheckpointError(WsiSegError, ValueError):
    """A model file is missing, damaged, unsafe or not suitable."""


class TrainingError(WsiSegError, RuntimeError):
    """Training cannot continue; the last checkpoint is intact."""


class OutputError(WsiSegError, OSError):
    """A result cannot be written to its path."""

    __str__ = Exception.__str__

    @classmethod
    def of(cls, path: object, error: OSError, *, step: str = "write") -> Self:
        """Create the error of a failed step: what happened, where, and what to do about it.

        Examples
        --------
        >>> str(OutputError.of("found/a.csv", OSError(errno.ENOSPC, "No space left on device")))
        'cannot write found/a.csv: No space left on device; make room, then repeat the command'
        """
        text = f"cannot {step} {path}: {error.strerror or error}"
        if error.errno in _FULL:
            text += "; make room, then repeat the command"
        elif error.errno in _DENIED and not isinstance(error, AddressError):
            text += "; choose another folder, or get permission to write to this one"
        return cls(text)


class AddressError(WsiSegError, OSError):
    """An object store or server fails, or denies access: errno, reason, address."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class BusyError(WsiSegError, RuntimeError):
    """Another command is writing to the same folder."""


class MissingLibraryError(WsiSegError, ImportError):
    """An optional library is not installed."""


class BatchError(WsiSegError, RuntimeError):
    """Some slides failed; all others were done.

    Parameters
    ----------
    failures
        Reason of each failure, by slide name.
    done
        Number of slides that succeeded.
    """

    def __init__(self, failures: Mapping[str, str], done: int) -> None:
        self.failures = dict(failures)
        self.done = done
        total = done + len(self.failures)
        super().__init__(
            f"{len(self.failures)} of {counted(total, 'slide')} failed, {done} done: "
            + "; ".join(f"{name}: {reason}" for name, reason in self.failures.items())
        )

    def __reduce__(self) -> tuple[type["BatchError"], tuple[dict[str, str], int]]:
        """Pickle the arguments, from which the message is made."""
        return type(self), (self.failures, self.done)
