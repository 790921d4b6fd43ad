"""Owns random numbers that depend on (seed, epoch, stream, index) alone.

They come from the counter-based generator Philox (Salmon et al., SC 2011): key = (seed, epoch),
counter = (index, stream). So any process can make number ``i`` without making those before it,
and numpy's and torch's global generators stay untouched.
"""

import enum

import numpy as np
from numpy.typing import NDArray

# Numbers of 64 bits that one step of Philox's counter yields.
BITS64 = 4


class Stream(enum.IntEnum):
    """Purposes that draw independently of each other."""

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
    """Random bits of the indices ``[first, first + count)``, shape ``(count, 4)`` uint64."""
    bits = _philox(seed, epoch, stream, first)
    raw: NDArray[np.uint64] = bits.random_raw(count * BITS64).reshape(count, BITS64)
    return raw


def uniforms(
    seed: int, epoch: int, *, stream: Stream, first: int, count: int
) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) of the indices ``[first, first + count)``, ``(count, 4)``."""
    raw = random_bits(seed, epoch, stream=stream, first=first, count=count)
    # The upper 53 bits, which a float64 holds exactly.
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def generator(seed: int, epoch: int, *, stream: Stream) -> np.random.Generator:
    """Build a numpy generator for what needs a whole epoch at once, such as a permutation."""
    return np.random.Generator(_philox(seed, epoch, stream, 0))


def _philox(seed: int, epoch: int, stream: Stream, index: int) -> np.random.Philox:
    key = np.array([seed, epoch], dtype=np.uint64)
    counter = np.array([index, stream, 0, 0], dtype=np.uint64)
    return np.random.Philox(key=key, counter=counter)
