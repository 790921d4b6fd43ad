import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.errors import ConfigError
from wsi_seg.sampling.folds import hold_out, make_folds


@given(
    slides=st.integers(6, 40), patients=st.integers(5, 12), count=st.integers(2, 5),
    seed=st.integers(0, 2**63 - 1),
)  # fmt: skip
def test_every_slide_is_held_out_once_and_no_group_is_split(slides, patients, count, seed):
    areas = {f"s{n}": float(n % 5 * 10) for n in range(slides)}
    groups = {f"s{n}": f"p{n % patients}" for n in range(0, slides, 2)}
    whole = {groups.get(name, name) for name in areas}
    if len(whole) < count:
        return
    folds = make_folds(areas, groups, count, seed=seed)
    assert folds == make_folds(areas, groups, count, seed=seed)
    assert sorted(name for fold in folds for name in fold) == sorted(areas)
    assert all(fold for fold in folds)
    for group in whole:
        members = {name for name in areas if groups.get(name, name) == group}
        assert sum(bool(members & set(fold)) for fold in folds) == 1


def test_folds_are_stratified_by_foreground():
    areas = {f"s{n:02}": float(0 if n < 10 else 10 ** (n % 3)) for n in range(30)}
    for fold in make_folds(areas, {}, 5, seed=3):
        assert sum(areas[name] == 0 for name in fold) == 2
        assert sum(areas[name] >= 100 for name in fold) in (1, 2)


def test_too_few_groups_are_an_error():
    with pytest.raises(ConfigError, match="2 groups"):
        make_folds({"a": 1, "b": 1, "c": 1}, {"a": "p", "b": "p"}, 3, seed=0)


@given(count=st.integers(1, 9), seed=st.integers(0, 99))
def test_held_out_slides_are_whole_groups(count, seed):
    names = [f"s{n}" for n in range(10)]
    groups = {name: f"p{n // 3}" for n, name in enumerate(names)}
    areas = {name: float(n % 4) for n, name in enumerate(names)}
    held_out = hold_out(areas, groups, count, np.random.default_rng(seed))
    assert count <= len(held_out) < count + 3
    for group in set(groups.values()):
        members = {name for name in names if groups[name] == group}
        assert members <= set(held_out) or not members & set(held_out)


def test_the_hold_out_is_stratified_by_foreground():
    """A fifth of 80 slides in four bins of area and of 20 empty ones: about five of each."""
    sizes = {f"s{n:03}": float(10 ** (n % 5) if n % 5 else 0) for n in range(100)}
    seen = set()
    for seed in range(10):
        held_out = hold_out(sizes, {}, 20, np.random.default_rng(seed))
        assert len(held_out) == 20
        counts = [sum(sizes[name] == area for name in held_out) for area in set(sizes.values())]
        assert min(counts) >= 3
        assert max(counts) <= 5
        seen.add(held_out)
    assert len(seen) == 10
