import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.data.augment import Augmenter
from wsi_seg.errors import ConfigError

SIDE = 24
Y, X = np.mgrid[:SIDE, :SIDE]
IMAGE = np.stack([Y * 10, X * 10, (Y * SIDE + X) % 256], axis=-1).astype(np.uint8)
LABEL = (Y * SIDE + X).astype(np.uint8)

SEEDS = st.lists(st.integers(0, 2**31 - 1), min_size=4, max_size=4)


def symmetries(array):
    turned = [np.rot90(array, k) for k in range(4)]
    return turned + [np.flipud(one) for one in turned]


@given(seeds=SEEDS)
@pytest.mark.parametrize("preset", ["none", "d4", "light", "stain"])
def test_the_seeds_decide_everything(preset, seeds):
    once = Augmenter(preset)(IMAGE, LABEL, seeds=seeds)
    augmenter = Augmenter(preset)
    augmenter(IMAGE, LABEL, seeds=[5, 6, 7, 8])
    again = augmenter(IMAGE, LABEL, seeds=seeds)
    for ours, theirs in zip(once, again, strict=True):
        assert ours.dtype == np.uint8
        assert np.array_equal(ours, theirs)


@given(seeds=SEEDS)
def test_d4_moves_image_and_label_together_and_blends_nothing(seeds):
    image, label = Augmenter("d4")(IMAGE, LABEL, seeds=seeds)
    moves = [np.array_equal(label, other) for other in symmetries(LABEL)]
    assert sum(moves) == 1
    assert np.array_equal(image, symmetries(IMAGE)[moves.index(True)])


def test_d4_reaches_all_eight_symmetries():
    augmenter = Augmenter("d4")
    seen = {augmenter(IMAGE, LABEL, seeds=[k])[1].tobytes() for k in range(100)}
    assert seen == {np.ascontiguousarray(one).tobytes() for one in symmetries(LABEL)}


@given(seeds=SEEDS)
def test_light_leaves_class_ids_alone(seeds):
    _, label = Augmenter("light")(IMAGE, LABEL, seeds=seeds)
    assert any(np.array_equal(label, other) for other in symmetries(LABEL))


def test_none_changes_nothing():
    image, label = Augmenter("none")(IMAGE, LABEL, seeds=[1])
    assert np.array_equal(image, IMAGE)
    assert np.array_equal(label, LABEL)


def test_unknown_presets_are_refused():
    with pytest.raises(ConfigError, match="'heavy'; expected none, d4, light or stain"):
        Augmenter("heavy")
