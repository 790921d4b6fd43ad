"""The verb that predicts: plans, sizes, several models."""

import json

import pytest
import torch
from typer.testing import CliRunner

from tests.cards import make_card
from wsi_seg.cli.app import app
from wsi_seg.models import build_network, save_checkpoint
from wsi_seg.testing.stores import make_store


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.output


@pytest.fixture
def files(tmp_path):
    make_store(tmp_path / "store.zarr", "one", 100, 90)
    paths = []
    for seed in range(2):
        torch.manual_seed(seed)
        card = make_card()
        paths.append(tmp_path / f"{seed}.safetensors")
        save_checkpoint(paths[-1], build_network(card.spec), card)
    return paths


def test_a_plan_is_printed_and_nothing_is_done(files, tmp_path):
    words = ("infer", tmp_path / "store.zarr", "--checkpoint", files[0], "--plan")
    code, text = run(*words, "--out", tmp_path / "pred.zarr", "--max-ram", "8GB")
    assert code == 0
    assert "one: 100 x 90 px" in text
    assert "of 8000 MB allowed" in text
    assert not (tmp_path / "pred.zarr").exists()
    code, text = run(*words, "--json")
    found = json.loads(text.splitlines()[-1])
    assert found["tiles"] == 6
    assert found["memory"]["total"] > 0


def test_some_slides_are_planned(files, tmp_path):
    make_store(tmp_path / "store.zarr", "two", 60, 50)
    words = ("infer", tmp_path / "store.zarr", "--checkpoint", files[0], "--plan", "--json")
    code, text = run(*words, "--only", "t*")
    assert code == 0
    assert [one["slide"] for one in json.loads(text.splitlines()[-1])["slides"]] == ["two"]


def test_stopped_amid_overwriting_the_way_on_is_without_it(files, tmp_path, monkeypatch):
    import wsi_seg.inference.run

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(wsi_seg.inference.run, "infer", stop)
    words = ["infer", tmp_path / "store.zarr", "--checkpoint", files[0]]
    words += ["--out", tmp_path / "pred.zarr"]
    assert "stopped: run the same command to continue" in run(*words)[1]
    assert "stopped: run the same command without --overwrite" in run(*words, "--overwrite")[1]


def test_a_plan_refuses_what_the_run_would_refuse(files, tmp_path):
    words = ["infer", tmp_path / "store.zarr", "--plan", "--overlap", "adaptive"]
    words += ["--checkpoint", files[0]]
    assert run(*words)[0] == 0
    code, text = run(*words, "--checkpoint", files[1])
    assert code == 1
    assert "adaptive overlap and several models" in text
    code, text = run(*words, "--tile", 63)
    assert code == 1
    assert "an even number of pixels" in text


def test_a_plan_with_slides_that_fail_is_printed_and_exits_1(files, tmp_path):
    make_store(tmp_path / "store.zarr", "unknown", 70, 70, mpp=None)
    code, text = run("infer", tmp_path / "store.zarr", "--checkpoint", files[0], "--plan")
    assert code == 1
    assert "one: 100 x 90 px" in text
    assert "error: 1 of 2 slides failed, 1 done" in text


def test_two_models_vote(files, tmp_path):
    out = tmp_path / "pred.zarr"
    words = ("infer", tmp_path / "store.zarr", "--out", out, "--checkpoint", files[0])
    code, text = run(*words, "--checkpoint", files[1], "--combine", "vote", "--json")
    assert code == 0, text
    found = json.loads(text.splitlines()[-1])
    assert found["tiles"] == 12
    assert found["peak_memory"] > 0
    assert found["memory"]["total"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_cluster_of_gpus_is_refused_on_a_machine_without(files, tmp_path):
    out = tmp_path / "pred.zarr"
    words = ("infer", tmp_path / "store.zarr", "--checkpoint", files[0], "--cluster", "cuda")
    code, text = run(*words, "--out", out)
    assert code == 1
    assert "error: got --cluster 'cuda', but this machine has no usable CUDA devices" in text
    assert not list(out.glob("*"))


def test_text_that_is_not_a_size_is_refused(files, tmp_path):
    words = ("infer", tmp_path / "store.zarr", "--checkpoint", files[0])
    assert run(*words, "--batch", "many")[0] != 0
    assert run(*words, "--max-ram", "lots")[0] == 1
    code, text = run(*words, "--max-ram", "10MB", "--plan")
    assert code == 1
    assert "at least" in text


@pytest.mark.parametrize("word", ["²", "-1", "0", "1.5", "many"])
def test_a_batch_that_is_not_a_number_is_refused(word):
    code, text = run("infer", "none.zarr", "--batch", word)
    assert code == 2
    assert "expected auto or a number" in " ".join(text.split())
