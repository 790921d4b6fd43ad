import base64
import html
import io
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.makers.painted import paint_prediction
from wsi_seg.cli.app import app
from wsi_seg.errors import ConfigError, StoreError
from wsi_seg.evaluation.compare import evaluate
from wsi_seg.evaluation.scores import Scores
from wsi_seg.progress import Silent
from wsi_seg.reporting.page import Section, cell, facts, page, table
from wsi_seg.reporting.prediction import score_sections
from wsi_seg.reporting.write import ReportSources, report
from wsi_seg.store import create_collection, open_collection, open_predictions


@pytest.fixture(scope="session")
def seen(tmp_path_factory):
    return paint_prediction(tmp_path_factory.mktemp("report"))


class Reader(HTMLParser):
    """Tables, numbers with their shown text, and whatever a page would fetch."""

    def __init__(self, text):
        super().__init__()
        self.values, self.texts, self.fetched, self.data, self._open = [], [], [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self._open.append((tag, given))
        if tag in ("link", "iframe", "object", "embed") or (tag == "script" and "src" in given):
            self.fetched.append(given)
        for name in ("src", "href", "xlink:href"):
            if name in given and not given[name].startswith(("#", "data:")):
                self.fetched.append(given[name])

    def handle_endtag(self, tag):
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, text):
        tag, given = self._open[-1] if self._open else ("", {})
        if "data-value" in given:
            self.values.append(float(given["data-value"]))
            self.texts.append(text)
        if tag == "script":
            self.data += text


def make_run(folder):
    folder.mkdir()
    (folder / "recipe.yaml").write_text(
        "name: <b>bold</b>\nsampling: {mix: {objects: 0.75, tissue: 0.25}, patches_per_epoch: 40}\n"
    )
    (folder / "metrics.csv").write_text(
        "epoch,loss,lr,val_dice,drawn_objects,drawn_tissue\n"
        "1,0.5,0.001,,30,10\n2,0.25,0.0005,0.75,31,9\n3,0.125,0.0001,0.8125,32,8\n"
    )
    (folder / "best.json").write_text(
        json.dumps({"architecture": "Unet", "scores": {"val_dice": 0.8125}})
    )
    return folder


def leaves(value):
    if isinstance(value, dict):
        return [leaf for one in value.values() for leaf in leaves(one)]
    if isinstance(value, list):
        return [leaf for one in value for leaf in leaves(one)]
    return [value] if isinstance(value, int | float) else []


def test_every_score_is_that_of_evaluate(seen, tmp_path):
    out = tmp_path / "report.html"
    report(ReportSources(seen.prediction, slides=seen.store), out, progress=Silent())
    found = CliRunner().invoke(
        app, ["evaluate", str(seen.prediction), "--truth", str(seen.store), "--json"]
    )
    expected = json.loads(found.stdout.splitlines()[-1])
    expected.pop("status")
    text = out.read_text()
    assert json.loads(Reader(text).data) == expected
    # Scores come first; figures of other sections do not come from evaluate.
    reader = Reader(text[: text.index('<section id="overviews"')])
    assert len(reader.values) >= 10
    assert set(reader.values) <= set(leaves(expected))
    assert set(leaves(expected["slides"])) <= set(reader.values)
    for text, value in zip(reader.texts, reader.values, strict=True):
        assert float(text.replace(",", "")) == pytest.approx(value, abs=5e-5, rel=5e-3)


def test_the_file_needs_nothing_next_to_it(seen, tmp_path):
    out = tmp_path / "report.html"
    run = make_run(tmp_path / "run")
    written = report(
        ReportSources(seen.prediction, slides=seen.store, run=run), out, progress=Silent()
    )
    text = out.read_text()
    reader = Reader(text)
    assert html.escape(text) in written._repr_html_()
    (first, *_) = re.findall(r"data:image/jpeg;base64,([^\"]+)", text)
    kept, drawn = (
        np.asarray(Image.open(io.BytesIO(data)))
        for data in (base64.b64decode(first), written._repr_png_() or b"")
    )
    assert np.array_equal(kept, drawn)
    assert reader.fetched == []
    assert "@import" not in text
    assert "url(http" not in text
    assert written.sections == (
        "Scores",
        "Slides",
        "Curves",
        "Overviews",
        "Worst places",
        "Typical places",
        "Settings",
        "Training",
        "Recipe",
    )
    assert text.count("data:image/jpeg") == 12  # the overview, the one mistake, typical objects
    assert "<b>bold</b>" not in text
    assert "&lt;b&gt;bold&lt;/b&gt;" in text


def test_equal_figures_make_equal_files(seen, tmp_path):
    files = [tmp_path / name for name in ("one.html", "two.html")]
    for file in files:
        report(ReportSources(seen.prediction, slides=seen.store), file, progress=Silent())
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_run_alone(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "fold-1").mkdir()
    (run / "fold-1/metrics.csv").write_text("epoch,loss\n1,0.5\n")
    out = tmp_path / "report.html"
    written = report(ReportSources(run), out, progress=Silent())
    assert written.sections == ("Training", "Training fold-1", "Recipe")
    assert written._repr_png_() is None
    values = Reader(out.read_text()).values
    assert {0.5, 0.25, 0.125, 0.75, 0.8125} <= set(values)


def test_candidates_in_volumes_get_their_curve(seen, tmp_path):
    marks, places = tmp_path / "marks.csv", tmp_path / "places.csv"
    head = "seriesuid,coordX,coordY,coordZ,"
    marks.write_text(head + "probability\na,0,0,0,0.9\nb,0,0,0,0.8\n")
    places.write_text(head + "diameter_mm\na,1,0,0,6\nb,50,0,0,6\n")
    out = tmp_path / "report.html"
    words = ["report", str(seen.prediction), "--candidates", str(marks), "--out", str(out)]
    assert CliRunner().invoke(app, words).exit_code == 2
    done = CliRunner().invoke(app, [*words, "--findings", str(places), "--json"])
    assert done.exit_code == 0, done.output
    assert "FROC" in json.loads(done.output.splitlines()[-1])["sections"]
    values = Reader(out.read_text()).values
    assert {0.125, 8.0, 0.5} <= set(values)


def test_the_worst_patches_are_shown_with_their_truth(seen, tmp_path):
    run = make_run(tmp_path / "run")
    (run / "recipe.yaml").write_text(
        f"classes: [{{name: gland}}]\ndata: {{stores: [{seen.store}]}}\nmpp: 1.0\npatch_px: 64\n"
    )
    (run / "worst.csv").write_text("slide,y,x,loss\npainted,900,800,1.25\ngone,1,1,0.5\n")
    out = tmp_path / "report.html"
    written = report(ReportSources(run), out, progress=Silent())
    assert written.sections == ("Training", "Worst patches", "Recipe")
    text = out.read_text()
    assert text.count("data:image/jpeg") == 1
    assert "painted, y 900, x 800; loss 1.25" in text
    assert "Patches per epoch, mean of 3 epochs" in text
    (run / "recipe.yaml").write_text("classes: [{name: gland}]\ndata: {stores: [no]}\nmpp: 1.0\n")
    report(ReportSources(run), out, progress=Silent())
    assert "The patches cannot be shown" in out.read_text()


def test_the_worst_patches_of_a_phase_have_its_size(seen, tmp_path):
    """A phase may change patch_px and mpp; its patches are those that it was trained on."""
    base = f"classes: [{{name: gland}}]\ndata: {{stores: [{seen.store}]}}\nmpp: 1.0\n"
    pictures = []
    for name, settings, part in (
        ("small", "patch_px: 64\n", "."),
        ("large", "patch_px: 128\n", "."),
        ("phases", "patch_px: 64\nphases: [{name: last, patch_px: 128}]\n", "last"),
    ):
        run = make_run(tmp_path / name)
        (run / "recipe.yaml").write_text(base + settings)
        (run / part).mkdir(exist_ok=True)
        (run / part / "metrics.csv").write_text("epoch,loss\n1,0.5\n")
        (run / part / "worst.csv").write_text("slide,y,x,loss\npainted,900,800,1.25\n")
        report(ReportSources(run), tmp_path / "report.html", progress=Silent())
        pictures += re.findall(
            r"data:image/jpeg;base64,([^\"]+)", (tmp_path / "report.html").read_text()
        )
    small, large, last = pictures
    assert last == large != small


def test_without_slides_or_truth_what_is_known_is_reported(seen, tmp_path):
    out = tmp_path / "report.html"
    bare = report(ReportSources(seen.prediction), out, progress=Silent())
    assert bare.sections == ("Settings",)
    assert bare.unscored == ("painted",)
    other = ReportSources(seen.prediction, slides=seen.store, truth="other")
    written = report(other, out, progress=Silent())
    assert written.sections == ("Warnings", "Overviews", "Settings")
    assert "not scored" in written.lines()[1]


def test_slides_with_truth_are_scored_next_to_one_without(seen, tmp_path):
    store, prediction = tmp_path / "store.zarr", tmp_path / "pred.zarr"
    shutil.copytree(seen.store, store)
    shutil.copytree(seen.prediction, prediction)
    shutil.copytree(store / "painted", store / "bare")
    shutil.copytree(prediction / "painted", prediction / "bare")
    shutil.rmtree(store / "bare" / "labels" / "annotations")
    shutil.copytree(store / "painted", store / "other")
    shutil.copytree(prediction / "painted", prediction / "other")
    label = store / "other" / "labels" / "annotations" / "zarr.json"
    label.write_text(label.read_text().replace('"gland"', '"vessel"'))
    sources = ReportSources(prediction, slides=store)
    written = report(sources, tmp_path / "report.html", progress=Silent())
    assert written.sections[:3] == ("Warnings", "Scores", "Slides")
    assert written.unscored == ("bare", "other")
    text = html.unescape((tmp_path / "report.html").read_text())
    assert "because they have no label 'annotations': bare<" in text
    assert "other: slide 'other': the prediction has classes gland" in text


def test_what_is_neither_a_run_nor_a_prediction_is_refused(seen, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"a run with recipe\.yaml"):
        report(ReportSources(tmp_path / "empty"), tmp_path / "r.html", progress=Silent())
    sources = ReportSources(seen.prediction, run=tmp_path / "empty")
    with pytest.raises(ConfigError, match="not a training run"):
        report(sources, tmp_path / "r.html", progress=Silent())
    create_collection(tmp_path / "other.zarr")
    sources = ReportSources(seen.prediction, slides=tmp_path / "other.zarr")
    with pytest.raises(StoreError, match="no slide 'painted'"):
        report(sources, tmp_path / "r.html", progress=Silent())
    run = make_run(tmp_path / "run")
    for broken in ("", "epoch,loss\n1\n", "epoch,loss\n1,much\n"):
        (run / "metrics.csv").write_text(broken)
        with pytest.raises(ConfigError, match=r"metrics\.csv"):
            report(ReportSources(run), tmp_path / "r.html", progress=Silent())
    assert not (tmp_path / "r.html").exists()


def test_curves_of_richer_figures_are_drawn(seen):
    scores = evaluate(
        open_predictions(seen.prediction),
        open_collection(seen.store),
        label="annotations",
        progress=Silent(),
    )

    class Richer(Scores):
        def to_json(self):
            curve = {"confidence": [0.1, 0.5, 0.9], "frequency": [0.2, 0.4, 0.95]}
            return scores.to_json() | {"reliability": {"gland": curve}}

    titles = [section.title for section in score_sections(Richer(scores.slides))]
    assert titles == ["Scores", "Slides", "Curves"]
    (curves,) = [one for one in score_sections(Richer(scores.slides)) if one.title == "Curves"]
    assert "reliability gland" in curves.body
    assert "<svg" in curves.body


def test_numbers_keep_their_value_and_text_stays_text():
    shown = table(["<a>", "b"], [["<script>", 0.123456789], [None, 12345]])
    assert "<script>" not in shown
    assert 'data-value="0.123456789">0.1235<' in shown
    assert 'data-value="12345">12,345<' in shown
    assert "yes" in facts({"kept": True})
    assert cell(1e-6).text == "1e-06"
    whole = page("t", "s", [Section("A b", "")], {"x": "</script>"})
    assert len(re.findall("</script>", whole)) == 1


def test_a_network_that_knows_the_position_is_warned_of(tmp_path):
    run = make_run(tmp_path / "run")
    even, uneven = np.full((8, 8), 0.25), np.full((8, 8), 0.25)
    uneven[2:6, 2:6] = 0.75
    answers = {"flat": {"gland": even.tolist()}, "shuffled": {"gland": uneven.tolist()}}
    (run / "position_bias.json").write_text(json.dumps({"answers": answers}))
    out = tmp_path / "report.html"
    written = report(ReportSources(run), out, progress=Silent())
    assert written.sections[0] == "Warnings"
    assert written.sections[2] == "Position bias"
    text = out.read_text()
    warned = "shuffled tiles are gland with probability 0.75 in the middle and 0.25 in the corners"
    assert f"the network has learned the position: {warned}" in text
    assert "position: flat tiles" not in text
    assert text.count("data:image/jpeg") == 2
    (run / "position_bias.json").write_text("{}")
    with pytest.raises(ConfigError, match="train again"):
        report(ReportSources(run), out, progress=Silent())
