"""Models to the hub and back, by a stand-in server on loopback."""

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.cards import make_card
from tests.commands import run_json
from tests.hub_server import served
from wsi_seg.errors import CheckpointError, ConfigError
from wsi_seg.models import build_network, save_checkpoint
from wsi_seg.models.hub import HubAddress, _only_model, is_hub_address
from wsi_seg.reporting.model_page import model_page

CARD = make_card(
    "gland", encoder="tu-resnet10t", architecture="UnetLean", scores={"val_dice": 0.8125},
    training={"train_slides": ["a", "b"]},
)  # fmt: skip
METRICS = "epoch,loss,lr,val_dice\n1,0.9,0.1,0.5\n2,0.4,0.05,0.8125\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    save_checkpoint(folder / "best.safetensors", build_network(CARD.spec), CARD)
    (folder / "metrics.csv").write_text(METRICS)
    return folder / "best.safetensors"


# Runs commands, each with its token, and prints what they say as JSON.
COMMANDS = """
import json, os, sys
from tests.commands import run
found = []
for token, words in json.loads(sys.argv[1]):
    os.environ["HF_TOKEN"] = token
    done = run(*words)
    found.append((done.exit_code, done.stdout, " ".join(done.stderr.split())))
print(json.dumps(found))
"""


def verbs(home, endpoint, *commands):
    """Run commands in a process of their own: the hub's library reads its settings once."""
    environment = {
        **os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    asked = json.dumps([(token, list(map(str, words))) for token, words in commands])
    command = [sys.executable, "-c", COMMANDS, asked]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def parsed(done):
    code, stdout, stderr = done
    assert code == 0, stderr
    return json.loads(stdout.splitlines()[-1])


def test_what_is_pushed_is_fetched_at_its_revision(model, store, tmp_path):
    slides = store.path.parent
    with served() as (endpoint, hub):
        words = ("push", model, "hf://lab/glands", "--license", "cc-by-4.0", "--json")
        (done,) = verbs(tmp_path, endpoint, ("secret", words))
        pushed = parsed(done)
        assert pushed["address"] == f"hf://lab/glands@{hub.branches['lab/glands']['main']}"
        assert pushed["slides"] == 2
        assert hub.private["lab/glands"] in ("private", True)
        _, files = hub.files("lab/glands", "main")
        assert files["best.safetensors"] == model.read_bytes()
        page = files["README.md"].decode()
        assert "license: cc-by-4.0" in page
        assert "| val Dice | 0.8125 |" in page
        assert "--checkpoint hf://lab/glands" in page
        figures = [name for name in files if name.startswith("figures/")]
        assert len(figures) == 3
        assert all(f"]({name})" in page and b"<svg" in files[name] for name in figures)

        hub.commit("lab/glands", "main", {"best.safetensors": b"newer, and damaged"})
        infer = ("infer", slides, "--checkpoint")
        there, damaged, refused, absent = verbs(
            tmp_path, endpoint,
            ("secret", (*infer, pushed["address"], "--out", tmp_path / "b.zarr", "--json")),
            ("secret", (*infer, "hf://lab/glands", "--out", tmp_path / "c.zarr")),
            ("wrong", ("push", model, "hf://lab/glands")),
            ("secret", (*infer, "hf://lab/other")),
        )  # fmt: skip
        for (code, _, stderr), said in (
            (damaged, "not a safetensors file"),
            (refused, "HF_TOKEN"),
            (absent, "cannot download hf:"),
        ):
            assert code == 1
            assert said in stderr
    here = run_json(*infer, model, "--out", tmp_path / "a.zarr")
    assert here["tiles"] == parsed(there)["tiles"] > 0
    for name in ("a", "b"):
        assert (tmp_path / f"{name}.zarr" / "slide" / "zarr.json").is_file()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("hf://a/b", HubAddress("a/b")),
        ("hf:/a/b@v1.0", HubAddress("a/b", "v1.0")),
        ("hf://a/b@main/x/m.onnx", HubAddress("a/b", "main", "x/m.onnx")),
    ],
)
def test_addresses_are_read(text, found):
    assert HubAddress.of(text) == found
    assert is_hub_address(text)


def test_what_is_not_an_address_is_refused():
    assert not is_hub_address("best.safetensors")
    for text in ("hf://a", "hf://a b/c", "http://a/b"):
        with pytest.raises(ConfigError, match="hf://OWNER/NAME"):
            HubAddress.of(text)


def test_the_only_model_of_a_repository_is_taken():
    assert _only_model(["README.md", "m.onnx", "best.safetensors"], "x") == "best.safetensors"
    assert _only_model(["m.onnx"], "x") == "m.onnx"
    for names in ([], ["a.onnx", "b.pt2"], ["a.safetensors", "b.safetensors"]):
        with pytest.raises(CheckpointError, match="expected one"):
            _only_model(names, "hf://a/b")


def test_a_page_without_a_run_has_no_figures(tmp_path):
    page = model_page(tmp_path / "m.onnx", make_card("a", mpp=None), licence="MIT")
    assert list(page) == ["README.md"]
    text = page["README.md"].decode()
    assert "license: mit" in text
    assert "## Scores" not in text
    assert "pixels of level 0" in text
