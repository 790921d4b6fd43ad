"""Calibration of exclusive classes: one temperature of all, found and applied."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.memory import MemoryImage, MemoryStore
from wsi_seg.classes import ClassTable
from wsi_seg.errors import ConfigError
from wsi_seg.evaluation.recalibrate import Calibration
from wsi_seg.evaluation.softmax import best_temperature, softened, softmax_losses

CLASSES = ClassTable.named(["a", "b"], mode="exclusive")


def drawn(temperature, seed=0, side=400):
    """Probabilities, and ids that are as probable as they are at another temperature."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(side, side, 3))
    said, true = (np.exp(logits / t) for t in (1.0, temperature))
    said, true = (p / p.sum(axis=2, keepdims=True) for p in (said, true))
    ids = (rng.random((side, side, 1)) > true.cumsum(axis=2)).sum(axis=2)
    return np.floor(255 * said[..., 1:] + 0.5).astype(np.uint8), ids.astype(np.uint8)


def stores(probability, ids):
    attributes = {"classes": CLASSES.to_json()}
    slide = MemoryImage(np.zeros((*ids.shape, 3), np.uint8))
    return (
        MemoryStore(MemoryImage(probability, attributes=attributes), name="s"),
        MemoryStore(slide, name="s", truth=MemoryImage(ids, attributes=attributes)),
    )


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
def test_the_temperature_that_truth_was_drawn_at_is_found(temperature):
    probability, ids = drawn(temperature)
    ids[:50] = 255
    losses = softmax_losses(*stores(probability, ids), label="truth")
    assert best_temperature(losses) == pytest.approx(temperature, rel=0.03)
    ids[:] = 255
    assert best_temperature(softmax_losses(*stores(probability, ids), label="truth")) == 1.0


@given(st.integers(0, 99), st.floats(0.3, 5))
def test_a_temperature_keeps_the_order_and_the_sum(seed, temperature):
    probability, _ = drawn(1.0, seed, side=12)
    found = softened(probability, temperature).astype(int)
    every = np.concatenate(
        [255 - probability.sum(axis=2, keepdims=True, dtype=int), probability], 2
    )
    after = np.concatenate([255 - found.sum(axis=2, keepdims=True), found], axis=2)
    assert (after >= -1).all()
    best = np.take_along_axis(after, every.argmax(axis=2)[..., None], axis=2)[..., 0]
    assert (best >= after.max(axis=2) - 1).all()
    assert np.abs(softened(probability, 1.0).astype(int) - probability).max() <= 1


def test_exclusive_classes_are_not_calibrated_one_by_one():
    with pytest.raises(ConfigError, match="expected method temperature"):
        Calibration.fit({}, "quantile", softmax=1.3)
    assert Calibration.fit({}, "temperature", softmax=1.3).softmax == 1.3
