"""Members of an ensemble against the truth, compared with the same sums over whole arrays."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.makers.painted import NAME, paint_prediction, write_prediction
from wsi_seg.cli.app import app
from wsi_seg.errors import ConfigError, StoreError
from wsi_seg.evaluation.ablation import AblationReport, Contribution, ablate_members
from wsi_seg.evaluation.maps import variance_of, write_variance
from wsi_seg.geometry import Region
from wsi_seg.predict.combine import combine
from wsi_seg.progress import Silent
from wsi_seg.reading.resample import read_label
from wsi_seg.store import open_collection, open_predictions


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    return paint_prediction(tmp_path_factory.mktemp("ensemble"))


@pytest.fixture(scope="module")
def members(painted):
    """Three predictions: two err in places of their own, the third nearly everywhere."""
    rng, folder = np.random.default_rng(0), painted.store.parent
    paths, values = [], []
    for number, noise in enumerate((60, 60, 250)):
        shift = rng.normal(0, noise, painted.probability.shape)
        values.append(np.clip(painted.probability + shift, 0, 255).astype(np.uint8))
        paths.append(folder / f"member_{number}.zarr")
        write_prediction(paths[-1], values[-1])
    return paths, values


def dice(found, truth):
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


def truth_of(painted):
    label = open_collection(painted.store)[NAME].label("annotations")
    store = open_predictions(painted.prediction)[NAME]
    extent = store.pyramid.extent
    return read_label(label, extent, 0, 0, height=extent.height, width=extent.width) > 0


@pytest.mark.parametrize(
    ("mode", "weights"),
    [("mean", None), ("weighted", (3, 1, 1)), ("geometric", None), ("vote", (1, 1, 1))],
)
def test_figures_are_those_of_whole_arrays(painted, members, mode, weights):
    paths, values = members
    report = ablate_members(
        [open_predictions(path) for path in paths], open_collection(painted.store),
        label="annotations", mode=mode, weights=weights, progress=Silent(),
    )  # fmt: skip
    truth, shares = truth_of(painted), weights or (1, 1, 1)

    def scored(chosen):
        some = [values[n] for n in chosen]
        return dice(combine(some, [shares[n] for n in chosen], mode) > 127, truth)

    (whole,) = report.dice.values()
    assert whole == pytest.approx(scored((0, 1, 2)), abs=1e-12)
    for n, one in enumerate(report.contributions):
        others = tuple(other for other in range(3) if other != n)
        assert one.member == f"member_{n}.zarr"
        assert one.alone == pytest.approx(scored((n,)), abs=1e-12)
        assert one.without == pytest.approx(scored(others), abs=1e-12)
        assert one.gain == pytest.approx(whole - one.without, abs=1e-12)
        assert (one.low, one.high) == (None, None)


def test_a_member_that_harms_is_named_and_intervals_are_over_slides(painted, members, tmp_path):
    paths, _ = members
    folders = []
    for folder in (painted.store, *paths):
        folders.append(tmp_path / folder.name)
        shutil.copytree(folder, folders[-1])
        shutil.copytree(folder / NAME, folders[-1] / "other")
    store, *predictions = map(str, folders)
    done = CliRunner().invoke(app, ["ensemble", *predictions, "--truth", store, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output.splitlines()[-1])
    assert found["slides"] == 2
    *_, last = found["contributions"]
    assert last["member"] == "member_2.zarr"
    assert last["low"] <= last["gain"] <= last["high"] < 0
    assert "the ensemble is better without member_2.zarr" in done.output


def test_what_cannot_be_combined_is_refused_naming_both(painted, members, tmp_path):
    paths, values = members
    collections = [open_predictions(path) for path in paths]
    truth = open_collection(painted.store)

    def ablate(some, **more):
        ablate_members(some, truth, label="annotations", progress=Silent(), **more)

    with pytest.raises(ConfigError, match="at least two"):
        ablate(collections[:1])
    with pytest.raises(ConfigError, match="expected mode weighted"):
        ablate(collections, weights=(2, 1, 1))
    with pytest.raises(ConfigError, match="for 3 members"):
        ablate(collections, weights=(2, 1), mode="weighted")
    write_prediction(tmp_path / "small.zarr", values[0][:-7])
    small = open_predictions(tmp_path / "small.zarr")
    with pytest.raises(StoreError, match=r"differ in size: .*member_0.* has .*small.* has "):
        ablate([collections[0], small])
    shutil.copytree(paths[0], tmp_path / "more.zarr")
    shutil.copytree(paths[0] / NAME, tmp_path / "more.zarr" / "other")
    with pytest.raises(StoreError, match=r"more.zarr has .* slide 'other', .*member_1"):
        ablate([collections[1], open_predictions(tmp_path / "more.zarr")])


def test_the_variance_is_numpys():
    rng = np.random.default_rng(2)
    values = rng.integers(0, 256, (5, 9, 7, 3), dtype=np.uint8)
    p = values / 255
    best = p.mean(axis=0).argmax(axis=2)[None, ..., None]
    expected = np.take_along_axis(p, best, axis=3)[..., 0].var(axis=0)
    np.testing.assert_allclose(variance_of(list(values)) * 0.25 / 255, expected, atol=0.125 / 255)
    extremes = [np.zeros((1, 1, 1), np.uint8), np.full((1, 1, 1), 255, np.uint8)]
    assert variance_of(extremes) == 255


def test_the_variance_map_is_kept_next_to_the_ensembles_prediction(painted, members):
    paths, values = members
    words = ["ensemble", *map(str, paths), "--truth", str(painted.store)]
    done = CliRunner().invoke(app, [*words, "--variance", str(painted.prediction)])
    assert done.exit_code == 0, done.output
    found = open_predictions(painted.prediction)[NAME]
    extent = found.pyramid.extent
    whole = Region(level=0, y=0, x=0, height=extent.height, width=extent.width)
    label = found.label("variance")
    np.testing.assert_array_equal(label.read(whole), variance_of([v[..., None] for v in values]))
    assert label.attributes["step"] == 0.25 / 255
    assert write_variance(found, [found, found]).read(whole).max() == 0


@pytest.mark.parametrize(("high", "harms"), [(-0.01, True), (0.0, False), (None, True)])
def test_a_member_harms_if_its_interval_is_below_zero(high, harms):
    low = None if high is None else -0.2
    one = Contribution("m", "gland", alone=0.5, without=0.8, gain=-0.1, low=low, high=high)
    report = AblationReport("mean", (1.0, 1.0), 3, {"gland": 0.7}, (one,))
    assert ("the ensemble is better without m" in report.lines()) is harms
