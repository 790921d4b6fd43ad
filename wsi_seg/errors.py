"""Owns every exception type that wsi_seg raises on purpose.

::

    WsiSegError
    ├── ConfigError (ValueError)             a recipe, option or class list is wrong
    ├── SlideError (ValueError)              a file cannot be read as a slide
    │   └── UnsupportedSlideError            it is a slide, of a kind we do not read
    │       └── UndecidedSlideError          only the user can say how to read it
    ├── RegionError (IndexError)             a region is outside its level
    ├── ResolutionError (ValueError)         mpp is missing, or does not fit the model
    ├── StoreError (ValueError)              a store is damaged or not one of ours
    │   ├── StoreNotFoundError (FileNotFoundError)
    │   └── StoreIncompleteError             writing it never finished
    ├── AnnotationError (ValueError)         an annotation file or feature is wrong
    ├── CheckpointError (ValueError)         a model file is missing, damaged or unsafe
    ├── TrainingError (RuntimeError)         training cannot go on
    ├── OutputError (OSError)                a result cannot be written where asked
    ├── AddressError (OSError)               an object store fails, or refuses
    ├── BusyError (RuntimeError)          another command is writing there
    ├── MissingLibraryError (ImportError)    an optional library is not installed
    └── BatchError (RuntimeError)            some slides failed; the others are done

Each message says what was got, what was expected and what to do, naming slide and region. Each
type also inherits the fitting builtin, so ``except ValueError`` keeps working for callers.
"""

from collections.abc import Mapping


class WsiSegError(Exception):
    """Base of all errors that wsi_seg raises on purpose."""


class ConfigError(WsiSegError, ValueError):
    """A recipe, an option or a class list is wrong."""


class SlideError(WsiSegError, ValueError):
    """A file cannot be read as a slide."""


class UnsupportedSlideError(SlideError):
    """A file is a slide, but of a kind that wsi_seg does not read."""


class UndecidedSlideError(UnsupportedSlideError):
    """A file does not say how to read it: which of its images, or pixels of which size."""


class RegionError(WsiSegError, IndexError):
    """A region is outside the level it names."""


class ResolutionError(WsiSegError, ValueError):
    """The micrometres per pixel are missing, or do not fit the model."""


class StoreError(WsiSegError, ValueError):
    """A store is damaged, or was not written by wsi_seg."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no store at the given path."""

    # FileNotFoundError would otherwise render (errno, text) pairs.
    __str__ = Exception.__str__


class StoreIncompleteError(StoreError):
    """Writing the store was started and never finished."""


class AnnotationError(WsiSegError, ValueError):
    """An annotation file, or one feature of it, is wrong."""


class CheckpointError(WsiSegError, ValueError):
    """A model file is missing, damaged, unsafe or does not fit."""


class TrainingError(WsiSegError, RuntimeError):
    """Training cannot go on; the last checkpoint is intact."""


class OutputError(WsiSegError, OSError):
    """A result cannot be written where it was asked for."""

    __str__ = Exception.__str__


class AddressError(WsiSegError, OSError):
    """An object store or a server fails, or refuses: error number, reason, address."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class BusyError(WsiSegError, RuntimeError):
    """Another command is writing to the same folder."""


class MissingLibraryError(WsiSegError, ImportError):
    """An optional library is not installed."""


class BatchError(WsiSegError, RuntimeError):
    """Some slides failed while all the others were done.

    Parameters
    ----------
    failures
        Reason of each failure, keyed by the slide's name.
    done
        Number of slides that succeeded.
    """

    def __init__(self, failures: Mapping[str, str], done: int) -> None:
        self.failures = dict(failures)
        self.done = done
        total = done + len(self.failures)
        super().__init__(
            f"{len(self.failures)} of {total} slides failed, {done} are done: "
            + "; ".join(f"{name}: {reason}" for name, reason in self.failures.items())
        )

    def __reduce__(self) -> tuple[type["BatchError"], tuple[dict[str, str], int]]:
        """Pickle by its arguments, because the message is derived from them."""
        return type(self), (self.failures, self.done)
