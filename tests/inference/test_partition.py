"""Shares of a run: every strip once, whatever the workers; small slides fill batches together."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.inference.parts import partition


@dataclass(frozen=True)
class Slide:
    """Strips of a slide that need so many tiles each, and one more for each part."""

    name: int
    strips: frozenset[int]
    each: int = 5

    @property
    def tiles(self):
        return len(self.strips) * self.each


def slides(counts, each=5):
    return [Slide(n, frozenset(range(count)), each) for n, count in enumerate(counts)]


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=20),
    st.integers(0, 300),
    st.integers(1, 64),
    st.integers(1, 64),
)
def test_every_strip_is_in_one_part_and_parts_are_neighbours(counts, each, workers, batch):
    tasks = slides(counts, each)
    parts: Any = list(partition(tasks, workers=workers, batch=batch))
    found = [(task.name, strip) for part in parts for task in part for strip in sorted(task.strips)]
    assert found == [(task.name, strip) for task in tasks for strip in sorted(task.strips)]
    for part in parts:
        assert all(max(t.strips) - min(t.strips) + 1 == len(t.strips) for t in part)
    for part in parts[:-1]:
        assert each == 0 or sum(task.tiles for task in part) >= batch - each


@pytest.mark.parametrize("workers", [1, 2, 7, 64])
def test_the_last_parts_are_small_and_none_is_large(workers):
    parts = list(partition(slides([200] * 4), workers=workers, batch=4))
    sizes = [sum(len(task.strips) for task in part) for part in parts]
    assert max(sizes) <= 16
    assert sum(sizes[-workers:]) <= max(2 * workers, 16)


def test_one_worker_gets_parts_as_large_as_can_be():
    parts = list(partition(slides([40]), workers=1, batch=4))
    assert [len(task.strips) for part in parts for task in part] == [14, 13, 13]


@given(st.lists(st.integers(1, 16), min_size=1, max_size=40), st.integers(1, 64), st.integers(1, 8))
def test_slides_that_fit_into_a_part_are_not_cut_by_one_worker(counts, each, batch):
    parts: Any = list(partition(slides(counts, each), workers=1, batch=batch))
    assert sum(map(len, parts)) == len(counts)


@pytest.mark.parametrize("workers", [1, 2, 16])
def test_parts_end_where_slides_end(workers):
    """Slides of 20 strips: only the last ones are shared, when there are too few for all."""
    parts: Any = list(partition(slides([20] * 200), workers=workers, batch=4))
    cut = {task.name for part in parts for task in part if len(task.strips) < 20}
    assert len(cut) <= 2 * workers
    assert not cut or min(cut) >= 200 - 3 * workers


def test_few_strips_reach_all_workers():
    parts = list(partition(slides([49]), workers=49, batch=4))
    assert len(parts) == 49


def test_small_slides_share_parts_that_fill_batches():
    parts = list(partition(slides([1] * 1000, each=1), workers=4, batch=16))
    sizes = [len(part) for part in parts]
    assert min(sizes[:-1]) >= 16
    assert max(sizes) <= 128


def test_many_large_slides_are_hardly_cut():
    """Neighbouring parts both predict the tiles between them, so cuts cost."""
    parts = list(partition(slides([12] * 1000), workers=64, batch=4))
    sizes = [sum(len(task.strips) for task in part) for part in parts]
    small = [size for size in sizes if size < 12]
    # Parts shrink only when 0.7 of what is left for each of 64 workers is less than a whole part.
    assert sum(small) <= 64 * 16 / 0.7
    # Those before end where a slide ends.
    cuts = sum(len(part) for part in parts) - 1000
    assert cuts <= len(small)
