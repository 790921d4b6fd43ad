"""Models to the hub and back, by a stand-in server on loopback."""

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.cards import make_card
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


def verb(home, endpoint, *words, token="secret"):
    environment = {
        **os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_TOKEN": token,
        "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    command = [sys.executable, "-m", "wsi_seg", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def parsed(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_what_is_pushed_is_fetched_at_its_revision(model, store, tmp_path):
    slides = store.path.parent
    with served() as (endpoint, hub):
        pushed = parsed(verb(tmp_path, endpoint, "push", model, "hf://lab/glands", "--license",
                             "cc-by-4.0", "--json"))  # fmt: skip
        assert pushed["address"] == f"hf://lab/glands@{hub.branches['lab/glands']['main']}"
        assert pushed["slides"] == 2
        assert hub.private["lab/glands"] in ("private", True)
        _, files = hub.files("lab/glands", "main")
        assert files["best.safetensors"] == model.read_bytes()
        page = files["README.md"].decode()
        assert "license: cc-by-4.0" in page
        assert "| val dice | 0.8125 |" in page
        assert "--checkpoint hf://lab/glands" in page
        figures = [name for name in files if name.startswith("figures/")]
        assert len(figures) == 3
        assert all(f"]({name})" in page and b"<svg" in files[name] for name in figures)

        hub.commit("lab/glands", "main", {"best.safetensors": b"newer, and damaged"})
        here = parsed(verb(tmp_path, endpoint, "infer", slides, "--checkpoint", model, "--out",
                           tmp_path / "a.zarr", "--json"))  # fmt: skip
        there = parsed(verb(tmp_path, endpoint, "infer", slides, "--checkpoint",
                            pushed["address"], "--out", tmp_path / "b.zarr", "--json"))  # fmt: skip
        assert here["tiles"] == there["tiles"] > 0
        damaged = verb(tmp_path, endpoint, "infer", slides, "--checkpoint", "hf://lab/glands",
                       "--out", tmp_path / "c.zarr")  # fmt: skip
        assert damaged.returncode == 1
        assert "not a safetensors file" in " ".join(damaged.stderr.split())
        refused = verb(tmp_path, endpoint, "push", model, "hf://lab/glands", token="wrong")
        assert refused.returncode == 1
        assert "HF_TOKEN" in refused.stderr
        absent = verb(tmp_path, endpoint, "infer", slides, "--checkpoint", "hf://lab/other")
        assert absent.returncode == 1
        assert "cannot download hf:" in " ".join(absent.stderr.split())
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
