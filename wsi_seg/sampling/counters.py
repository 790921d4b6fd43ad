"""Owns random numbers that depend only on (seed, epoch, stream, index).

They come from the counter-based generator Philox (Salmon et al., SC 2011): key = (seed, epoch),
counter = (index, stream). Any process can compute number ``i`` without those before it, and the
global generators of numpy and torch are not used.
"""

import enum

import numpy as np
from numpy.typing import NDArray

# 64-bit numbers per increment of Philox's counter.
BITS64 = 4


class Stream(enum.IntEnum):
    """Independent streams of random numbers."""

    LAYERS = 1
    OBJECTS = 2
    POSITIONS = 3
    AUGMENT = 4
    SPLIT = 5
    NETWORK = 6
    AROUND_OBJECTS = 7


def random_bits(
    seed: int, epoch: int, *, stream: Stream, first: int, count: int
) -> NDArray[np.uint64]:
    """Return the random bits of indices ``[first, first + count)``, ``(count, 4)`` uint64."""
    bits = _philox(seed, epoch, stream, first)
    raw: NDArray[np.uint64] = bits.random_raw(count * BITS64).reshape(count, BITS64)
    return raw


def uniforms(
    seed: int, epoch: int, *, stream: Stream, first: int, count: int
) -> NDArray[np.float64]:
    """Return uniform numbers in [0, 1) for indices ``[first, first + count)``, ``(count, 4)``."""
    raw = random_bits(seed, epoch, stream=stream, first=first, count=count)
    # A float64 has 53 bits of precision.
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def generator(seed: int, epoch: int, *, stream: Stream) -> np.random.Generator:
    """Build a numpy generator for draws over a whole epoch, such as a permutation."""
    return np.random.Generator(_philox(seed, epoch, stream, 0))


def _philox(seed: int, epoch: int, stream: Stream, index: int) -> np.random.Philox:
    key = np.array([seed, epoch], dtype=np.uint64)
    counter = np.array([index, stream, 0, 0], dtype=np.uint64)
    return np.random.Philox(key=key, counter=counter)
