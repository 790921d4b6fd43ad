"""Combining the predictions of several networks, on pixels, without networks."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.postprocess.label_map import label_map
from wsi_seg.predict.combine import combine

MODES = ["mean", "weighted", "geometric", "vote"]


def predictions(members, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (7, 9, 2), dtype=np.uint8) for _ in range(members)]


@given(st.sampled_from(MODES[:3]), st.lists(st.floats(0.01, 100), min_size=1, max_size=6))
def test_equal_predictions_are_unchanged(mode, weights):
    every = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    np.testing.assert_array_equal(combine([every] * len(weights), weights, mode), every)


@given(st.sampled_from(MODES), st.integers(1, 5), st.integers(0, 99), st.randoms())
def test_the_order_of_members_does_not_matter(mode, members, seed, random):
    found = predictions(members, seed)
    order = random.sample(range(members), members)
    np.testing.assert_array_equal(
        combine(found, [1.0] * members, mode),
        combine([found[i] for i in order], [1.0] * members, mode),
    )


def shares(members, seed=0, classes=3):
    """Return predictions of exclusive classes."""
    rng = np.random.default_rng(seed)
    found = rng.dirichlet(np.full(classes + 1, 0.5), (members, 7, 9))
    return list(np.floor(255 * found[..., 1:] + 0.5).astype(np.uint8))


def with_background(prediction):
    left = np.maximum(0, 255 - prediction.sum(axis=-1, dtype=int))
    return np.concatenate([left[..., None], prediction], axis=-1)


@given(st.integers(0, 99), st.integers(1, 6), st.integers(1, 5))
def test_exclusive_members_vote_for_the_class_of_their_label_map(seed, members, classes):
    found = shares(members, seed, classes)
    votes = np.zeros((7, 9, classes + 1))
    for one in found:
        votes += np.eye(classes + 1)[with_background(one).argmax(axis=-1)]
    got = label_map(combine(found, [1.0] * members, "vote", exclusive=True), "exclusive")
    most = votes.max(axis=-1, keepdims=True)
    assert (np.take_along_axis(votes, got[..., None].astype(int), axis=-1) == most).all()


@given(st.integers(0, 99), st.integers(1, 4))
def test_an_exclusive_geometric_mean_is_normalised_over_background_and_classes(seed, members):
    found = shares(members, seed)
    logs = [np.log(np.maximum(with_background(one) / 255, 2.0**-10)) for one in found]
    mean = np.exp(np.mean(logs, axis=0))
    expected = 255 * (mean / mean.sum(axis=-1, keepdims=True))[..., 1:]
    got = combine(found, [1.0] * members, "geometric", exclusive=True)
    assert np.abs(got - expected).max() <= 0.5 + 1e-6
    if members == 1:
        assert np.abs(got.astype(int) - found[0]).max() <= 2


def test_a_mean_of_fifteen_is_the_mean_of_their_stack():
    found = predictions(15)
    expected = np.floor(np.stack(found).mean(axis=0) + 0.5)
    np.testing.assert_array_equal(combine(found, [1.0] * 15, "mean"), expected)


def test_only_ratios_of_weights_matter():
    found = predictions(4)
    expected = sum(w * p.astype(float) for w, p in zip((0.4, 0.2, 0.2, 0.2), found, strict=True))
    for scale in (1, 10):
        got = combine(found, [0.4 * scale, *[0.2 * scale] * 3], "weighted")
        assert np.abs(got - expected).max() <= 0.5 + 1e-6
    heavy = combine(found, [1e9, 1, 1, 1], "weighted")
    np.testing.assert_array_equal(heavy, found[0])


def test_geometric_is_the_normalised_geometric_mean_and_logits_are_averaged():
    p, q = 0.2, 0.9
    yes, no = np.sqrt(p * q), np.sqrt((1 - p) * (1 - q))
    pair = [np.full((1, 1, 1), round(255 * v), dtype=np.uint8) for v in (p, q)]
    got = combine(pair, [1, 1], "geometric")[0, 0, 0]
    assert abs(got - 255 * yes / (yes + no)) <= 1
    assert combine(pair, [1, 1], "mean")[0, 0, 0] == 141  # of 51 and 230


def test_the_majority_of_three_is_its_truth_table():
    for votes in itertools.product((0, 1), repeat=3):
        px = [np.full((1, 1, 1), 200 * vote + 20, dtype=np.uint8) for vote in votes]
        assert (combine(px, [1, 1, 1], "vote")[0, 0, 0] > 127) == (sum(votes) >= 2)


def test_a_majority_of_independent_members_has_the_expected_accuracy():
    rng = np.random.default_rng(0)
    size = (400, 500, 1)
    right = [np.where(rng.random(size) < p, 255, 0).astype(np.uint8) for p in (0.7, 0.7, 0.8)]
    exact = 0.7 * 0.7 * 0.8 + 0.7 * 0.7 * 0.2 + 2 * 0.7 * 0.3 * 0.8
    assert exact == pytest.approx(0.826)
    assert (combine(right, [1, 1, 1], "vote") > 127).mean() == pytest.approx(exact, abs=0.004)


@given(st.integers(1, 6), st.floats(0.1, 9))
def test_a_class_needs_more_than_half_of_the_votes(pairs, weight):
    no, yes = np.zeros((1, 1, 1), np.uint8), np.full((1, 1, 1), 255, np.uint8)
    assert combine([no, yes] * pairs, [weight] * 2 * pairs, "vote")[0, 0, 0] == 127
    more = combine([no, yes] * pairs + [yes], [weight] * (2 * pairs + 1), "vote")
    assert more[0, 0, 0] > 127
