"""Coarser levels to the byte: what a slow loop over cells says, for any size, ratio, channels."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsi_seg.store.reduction import area_mean, cell_edges, halve, reduced

SIDES = st.integers(1, 19)
SHAPES = st.one_of(
    st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES, st.sampled_from([1, 2, 3, 4, 5, 16]))
)
PIXELS = SHAPES.flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 3, 127, 254, 255]))
)


def spelled_out(pixels, height, width, *, nearest):
    """Each pixel by itself, by the rule as it always was."""
    out = np.empty((height, width, *pixels.shape[2:]), dtype=np.uint8)
    rows = list(pairwise(borders(pixels.shape[0], height)))
    columns = list(pairwise(borders(pixels.shape[1], width)))
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            cell = pixels[top:bottom, left:right].astype(int)
            count = (bottom - top) * (right - left)
            if nearest:
                out[i, j] = pixels[(top + bottom) // 2, (left + right) // 2]
            else:
                out[i, j] = (cell.sum(axis=(0, 1)) + count // 2) // count
    return out


def borders(full, small):
    if small == -(-full // 2):
        return [min(2 * place, full) for place in range(small + 1)]
    return [place * full // small for place in range(small + 1)]


@given(pixels=PIXELS, nearest=st.booleans())
def test_half_of_any_size(pixels, nearest):
    height, width = (-(-side // 2) for side in pixels.shape[:2])
    out = np.empty((height, width, *pixels.shape[2:]), dtype=np.uint8)
    halve(pixels, out, nearest=nearest)
    assert np.array_equal(out, spelled_out(pixels, height, width, nearest=nearest))


@given(pixels=PIXELS, data=st.data(), nearest=st.booleans())
def test_any_ratio(pixels, data, nearest):
    height, width = (data.draw(st.integers(1, side)) for side in pixels.shape[:2])
    y_edges = cell_edges((0, height), pixels.shape[0], height)
    x_edges = cell_edges((0, width), pixels.shape[1], width)
    found = reduced(pixels, y_edges, x_edges, nearest=nearest)
    assert np.array_equal(found, spelled_out(pixels, height, width, nearest=nearest))


@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4, 7])
def test_views_of_larger_arrays(channels):
    """Parts of strips go in and out as they are in memory, wide enough for vector code."""
    tail = () if channels is None else (channels,)
    rng = np.random.default_rng(0)
    around = rng.integers(0, 256, (203, 403, *tail), dtype=np.uint8)
    pixels, target = around[1:, 2:], np.zeros((110, 220, *tail), dtype=np.uint8)
    for nearest in (False, True):
        halve(pixels, target[5:106, 7:208], nearest=nearest)
        expected = spelled_out(pixels, 101, 201, nearest=nearest)
        assert np.array_equal(target[5:106, 7:208], expected)
    target[5:106, 7:208] = 0
    assert not target.any()


@given(height=SIDES, width=SIDES, value=st.integers(0, 255), data=st.data())
def test_a_constant_has_a_constant_mean(height, width, value, data):
    pixels = np.full((height, width, 3), value, dtype=np.uint8)
    small = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    edges = [cell_edges((0, n), full, n) for n, full in zip(small, (height, width), strict=True)]
    mean = area_mean(pixels, *edges)
    assert mean.shape == (*small, 3)
    assert (mean == value).all()


def test_large_cells_do_not_overflow():
    pixels = np.full((4100, 4100), 255, dtype=np.uint8)
    edges = np.array([0, 4100])
    assert area_mean(pixels, edges, edges) == 255


THREADS = """
import os
import numpy as np
from wsi_seg.store.reduction import halve
pixels, out = np.zeros((800, 3000, 3), np.uint8), np.empty((400, 1500, 3), np.uint8)
halve(pixels[:2], out[:1], nearest=False)
before = len(os.listdir("/proc/self/task"))
halve(pixels, out, nearest=False)
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists a process's threads")
def test_no_threads_are_left_that_a_fork_would_lose():
    command = [sys.executable, "-c", THREADS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
