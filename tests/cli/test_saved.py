"""Every verb that reads predictions, where probabilities or class ids alone were saved."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image
from starlette.testclient import TestClient
from typer.testing import CliRunner

from tests.makers.painted import NAME, paint_prediction, write_prediction
from wsi_seg.cli.app import app
from wsi_seg.ct.candidates import write_candidates
from wsi_seg.postprocess.rule import Rule, write_rule
from wsi_seg.progress import Silent
from wsi_seg.slides.volume import VolumeGrid
from wsi_seg.store import open_collection, open_predictions
from wsi_seg.store.digests import write_digests
from wsi_seg.viewer.app import make_app
from wsi_seg.viewer.catalog import Catalog

UNTURNED = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
HINT = "predict it again with `wsi-seg infer --save both --overwrite`"
RECIPE = "classes: [{{name: gland}}]\ndata: {{stores: [{}], validation: 0}}\nmpp: 0.5\n"


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    return paint_prediction(tmp_path_factory.mktemp("saved"))


@pytest.fixture(params=["probabilities", "labels"])
def predicted(request, painted, tmp_path):
    """The painted prediction with less of it saved, and what that is."""
    path = tmp_path / "p.zarr"
    write_prediction(path, painted.probability, saved=request.param)
    write_digests(path / NAME)
    return path, request.param


def run(*words, code=0):
    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert done.exit_code == code, done.output
    return done


def summary_of(*words):
    return json.loads(run(*words).output.splitlines()[-1])


def refused(*words):
    """The verb ends with a sentence, and leaves no unfinished work in the prediction."""
    done = run(*words, code=1)
    assert "Traceback" not in done.output
    return done.stderr


def test_evaluate_scores_pixels_objects_and_outlines_alike(painted, predicted):
    path, saved = predicted
    both = summary_of("evaluate", painted.prediction, "--truth", painted.store)
    found = summary_of("evaluate", path, "--truth", painted.store, "--maps")
    assert found["slides"] == both["slides"]
    assert ("calibration" in found) is (saved != "labels")
    unsure = "calibration not measured on 1 of 1 slide: only class ids were saved"
    assert found["warnings"] == ([unsure] if saved == "labels" else [])
    kept = {"errors"} if saved == "labels" else {"errors", "energy", "uncertainty"}
    (store,) = open_predictions(path)
    assert set(store.label_names()) - {"prediction"} == kept


def test_evaluate_decides_by_class_ids_where_the_rule_allows_it(painted, predicted, tmp_path):
    path, saved = predicted
    both, truth = shutil.copytree(painted.prediction, tmp_path / "b"), ("--truth", painted.store)
    for words in (("--threshold", 0.5), ("--watershed-depth", 2.0)):
        found, other = (
            summary_of("evaluate", one, *words, *truth)["slides"] for one in (path, both)
        )
        assert found == other
    if saved == "labels":
        said = refused("evaluate", path, "--threshold", 0.6, *truth)
        assert "the rule (above 0.6) needs probabilities" in said
        assert "--threshold 0.5" in said
        assert not (path / NAME / ".wsi_seg/partial").exists()
    else:
        assert summary_of("evaluate", path, "--threshold", 0.6, *truth)["slides"][0]["fp"] == 0


def exported(path, folder, *words):
    """The report of an export, and the bytes of every file by name."""
    targets = ("geojson", "png", "overview", "ome-tiff", "table", "rle", "coco")
    options = [part for name in targets for part in (f"--{name}", folder / name)]
    report = summary_of("export", path, *options, *words)
    written = [f for f in folder.rglob("*") if f.is_file() and f.parent.name != ".exported"]
    return report, {f.relative_to(folder).as_posix(): f for f in written}


def sure(members):
    """Members of an object of JSON without probabilities, which class ids lack."""
    unsure = ("score", "Mean probability", "Max probability")
    return {name: value for name, value in members.items() if name not in unsure}


@pytest.fixture(scope="module")
def both(painted):
    """Files exported where both were saved."""
    folder = painted.store.parent / "both"
    return exported(painted.prediction, folder, "--slides", painted.store)[1]


def test_export_writes_the_same_files(painted, both, predicted, tmp_path):
    path, saved = predicted
    report, files = exported(path, tmp_path / "out", "--slides", painted.store)
    without = {f"ome-tiff/{NAME}.probability.ome.tif"} if saved == "labels" else set()
    assert both.keys() - files.keys() == without
    for name in ("rle", f"png/{NAME}.png"):
        assert files[name].read_bytes() == both[name].read_bytes(), name
    for name in ("coco", f"geojson/{NAME}.geojson"):
        found, other = (json.loads(f[name].read_text(), object_hook=sure) for f in (files, both))
        assert found == other, name
        if saved != "labels":
            assert files[name].read_bytes() == both[name].read_bytes(), name
    found = tifffile.imread(files[f"ome-tiff/{NAME}.labels.ome.tif"], series=0, level=0)
    assert np.array_equal(found, painted.probability > 127)
    tables = [f[f"table/{NAME}.csv"].read_text().splitlines() for f in (files, both)]
    rows = [list(csv.DictReader(lines)) for lines in tables]
    assert len(rows[0]) == len(rows[1]) > 1
    for row, other in zip(*rows, strict=True):
        for name, value in other.items():
            unknown = saved == "labels" and name.endswith("_probability")
            assert row[name] == ("nan" if unknown else value)
    pictures = [np.asarray(Image.open(f[f"overview/{NAME}.png"])) for f in (files, both)]
    assert (pictures[0] != pictures[1]).any(axis=2).mean() < 0.01
    missing = "probabilities of 1 slide were not exported: only class ids were saved"
    assert report["warnings"] == ([missing] if saved == "labels" else [])


def test_export_by_a_rule_says_where_probabilities_are_missing(predicted, tmp_path):
    path, saved = predicted
    write_rule(tmp_path / "rule.json", Rule(0.7, 0.6), {})
    words = ("export", path, "--rule", tmp_path / "rule.json", "--png", tmp_path)
    if saved == "labels":
        assert HINT in refused(*words)
        assert not (tmp_path / f"{NAME}.png").exists()
        return
    assert summary_of(*words)["files"] == [str(tmp_path / f"{NAME}.png")]


@pytest.mark.parametrize("verb", ["search", "calibrate", "mine", "next", "ensemble", "pseudo"])
def test_verbs_that_need_probabilities_refuse_class_ids(painted, predicted, tmp_path, verb):
    path, saved = predicted
    store = shutil.copytree(painted.store, tmp_path / "s.zarr")
    for folder in (path, store):
        shutil.copytree(folder / NAME, folder / "other")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(painted.store))
    truth = ("--truth", store)
    if verb == "pseudo":
        for name in (NAME, "other"):
            shutil.rmtree(store / name / "labels" / "annotations")
    words = {
        "search": (path, *truth, "--high-threshold", "0.4,0.5", "--out", tmp_path / "rule.json"),
        "calibrate": (path, *truth, "--apply", path, "--out", tmp_path / "c.zarr"),
        "mine": (path, store),
        "next": (store, path),
        "ensemble": (path, path, *truth, "--variance", path),
        "pseudo": (path, store, "--recipe", tmp_path / "recipe.yaml"),
    }[verb]
    if saved == "labels":
        before = {*tmp_path.rglob("*")}
        assert HINT in refused(verb, *words)
        after = {*tmp_path.rglob("*")}
        assert after == before
        return
    run(verb, *words)
    if verb == "calibrate":  # writes both, whatever was calibrated
        (first, _) = open_predictions(tmp_path / "c.zarr")
        assert (first.saved, first.label_names()) == ("both", ("prediction",))


def test_the_variance_of_members_may_be_kept_next_to_class_ids(painted, predicted):
    path, _ = predicted
    members = [painted.prediction] * 2
    run("ensemble", *members, "--truth", painted.store, "--variance", path)
    assert "variance" in open_predictions(path)[NAME].label_names()


def test_report_shows_the_same_pictures(painted, predicted, tmp_path):
    path, saved = predicted
    report = summary_of("report", path, "--slides", painted.store, "--out", tmp_path / "r.html")
    shown = {"Scores", "Slides", "Overviews", "Worst places", "Typical places", "Settings"}
    shown |= {"Warnings"} if saved == "labels" else {"Curves"}
    assert set(report["sections"]) == shown
    text = (tmp_path / "r.html").read_text()
    assert text.count("data:image/jpeg") == 12  # the overview, the one mistake, typical objects
    assert ("calibration not measured" in text) is (saved == "labels")


def test_verify_reads_them(predicted):
    path, _ = predicted
    assert summary_of("verify", path)["stores"] == [NAME]
    (path / NAME / "zarr.json").write_text("{}")
    refused("verify", path)


def test_view_shows_them(painted, predicted):
    path, saved = predicted
    catalog = Catalog(open_collection(painted.store), open_predictions(path), "annotations")
    http = TestClient(make_app(catalog, review=None, token=None), base_url="http://127.0.0.1")
    layers = [one["id"] for one in http.get(f"/slides/{NAME}").json()["layers"]]
    known = {"image", "errors-0", "found-prediction", "label-annotations", "label-tissue"}
    assert set(layers) == known | {"importance", "coverage"} | (
        {"probability-0"} if saved != "labels" else set()
    )

    def tile(layer):
        response = http.get(f"/slides/{NAME}/layers/{layer}/0/0/0")
        assert response.status_code == 200, response.text
        return np.asarray(Image.open(io.BytesIO(response.content)))

    some = painted.probability[:512, :512]
    assert np.array_equal(tile("found-prediction"), some > 127)
    expected = np.where(some > 127, 255, 0) if saved == "labels" else some
    assert np.array_equal(tile("errors-0")[..., 0], expected)
    values = http.get(f"/slides/{NAME}/values?x=20&y=20").json()
    assert values["found-prediction"] == 1  # the mistake
    objects = http.get(f"/slides/{NAME}/objects").json()
    (wrong,) = [one for one in objects if one["overlap"] == 0]
    area, sure = 60 * 48 * 0.25, 1.0 if saved == "labels" else 140 / 255
    assert wrong["error_mass"] == pytest.approx(sure * area)
    assert wrong["probability"] == (None if saved == "labels" else pytest.approx(sure))


def test_candidates_of_volumes_need_probabilities(predicted, tmp_path):
    path, saved = predicted
    (path / NAME).rename(path / "ct_z0001")
    extent = open_predictions(path)["ct_z0001"].pyramid.extent
    size = (extent.width, extent.height, 3)
    grids = {"ct": VolumeGrid(size, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), UNTURNED)}

    def write():
        return write_candidates(
            open_predictions(path), grids, tmp_path / "m.csv", progress=Silent()
        )

    if saved == "labels":
        with pytest.raises(ValueError, match=HINT):
            write()
        assert not (tmp_path / "m.csv").exists()
        return
    assert write().candidates["ct"] > 1
    with (tmp_path / "m.csv").open() as file:
        assert {row["probability"] for row in csv.DictReader(file)} == {"0.5490", "0.7843"}
