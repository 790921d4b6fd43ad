"""Owns tuning glibc's malloc: keep freed memory, or return it to the system."""

import ctypes
import sys

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3

# Largest block that is kept for reuse; the parameter is a C int.
_MAX_KEPT_BYTES = 2**30


def keep_freed_memory() -> None:
    """Let malloc keep large freed blocks for reuse, instead of returning them to the system.

    On a CPU, each layer of a network allocates tens of MB that the previous one has just freed; if
    these were returned, their pages would be faulted in and zeroed again. Measured on two cores,
    Unet efficientnet-b0: 1.1 s instead of 1.8 s for 4 tiles of 512 px, with the same peak memory.
    Does nothing if malloc is not glibc's.
    """
    if (library := _glibc()) is not None:
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(_MMAP_THRESHOLD, _MAX_KEPT_BYTES)


def give_back_freed_memory() -> None:
    """Let malloc return all free pages to the system, including those between used ones.

    For long-lived processes after work with many small objects: a million outlines left 140 MB.
    Does nothing if malloc is not glibc's.
    """
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
