"""Models out: every format gives what our own pass gives, and comes back as it went."""

import json
import sys
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml

from tests.cards import make_card
from tests.commands import run, run_json
from wsi_seg.errors import ConfigError, OutputError
from wsi_seg.exporting import pack
from wsi_seg.exporting.bioimageio import Credits
from wsi_seg.exporting.pack import PackTargets, pack_model
from wsi_seg.inference.array import Predictor
from wsi_seg.inference.options import InferOptions
from wsi_seg.models import build_network, save_checkpoint
from wsi_seg.models.foreign import card_for, open_network

OPTIONS = InferOptions(overlap=0.5, device="cpu", precision="fp32")
CARD = make_card(
    "gland", "blood vessel", encoder="tu-resnet10t", architecture="UnetLean",
    mean=(0.7, 0.5, 0.6), std=(0.2, 0.3, 0.25), scores={"val_dice": 0.5},
    training={"train_slides": ["a"]}, tile_px=96,
)  # fmt: skip


def checkpoint(path, card=CARD):
    torch.manual_seed(2)
    network = build_network(card.spec).eval()
    for name, values in network.named_buffers():
        if name.endswith("running_mean"):
            values.normal_(0, 0.2)
        if name.endswith("running_var"):
            values.uniform_(0.5, 2)
    save_checkpoint(path, network, card)
    return path


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    targets = PackTargets(*(folder / f"m{end}" for end in (".onnx", ".pt2", ".pt", ".zip")))
    report = pack_model(
        checkpoint(folder / "m.safetensors"), targets, Credits("My model!", ("A. B.",))
    )
    return folder, report


def test_every_file_is_close_to_our_own_pass(packed):
    folder, report = packed
    assert {path.name for path in report.differences} == {"m.onnx", "m.pt2", "m.pt", "m.zip"}
    assert max(report.differences.values()) < 5e-4
    assert (report.side_px, report.multiple) == (None, 32)
    assert sorted(p.name for p in folder.iterdir()) == [
        "m.json", "m.onnx", "m.pt", "m.pt2", "m.safetensors", "m.zip",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["m.onnx", "m.pt2", "m.pt"])
def test_what_was_packed_comes_back_by_the_card_inside(packed, name):
    folder, _ = packed
    found = card_for(open_network(folder / name, trust=name == "m.pt"))
    assert found.output == "probabilities"
    assert replace(found, mean=CARD.mean, std=CARD.std, output="logits") == CARD
    rgb = np.random.default_rng(1).integers(0, 256, (150, 210, 3), dtype=np.uint8)
    ours = Predictor.load(folder / "m.safetensors", OPTIONS)(rgb)
    theirs = Predictor.load(folder / name, OPTIONS, trust=name == "m.pt")(rgb)
    assert np.abs(ours - theirs).max() <= 1.01 / 255
    assert ours.std() > 0.001


@pytest.mark.parametrize("name", ["m.onnx", "m.pt2", "m.pt"])
def test_normalisation_and_any_batch_and_size_are_inside(packed, name):
    folder, _ = packed
    network = open_network(folder / name, trust=name == "m.pt")
    own = build_network(CARD.spec).eval()
    own.load_state_dict(
        Predictor.load(folder / "m.safetensors")._model.members[0].load().state_dict()
    )
    for count, height, width in ((1, 64, 96), (3, 128, 64)):
        images = torch.randint(256, (count, 3, height, width)).float()
        mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (CARD.mean, CARD.std))
        with torch.no_grad():
            expected = own((images / 255 - mean) / std).sigmoid()
            assert torch.allclose(network(images), expected, atol=1e-4)


def test_the_archive_passes_the_tests_of_bioimageio(packed):
    core = pytest.importorskip("bioimageio.core")
    folder, _ = packed
    for form in ("torchscript", "onnx"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it reads TorchScript, which torch advises against
            summary = core.test_model(folder / "m.zip", weight_format=form)
        assert summary.status == "passed", summary.format()


def test_the_archive_says_what_it_is(packed):
    folder, _ = packed
    with zipfile.ZipFile(folder / "m.zip") as archive:
        stated = yaml.safe_load(archive.read("rdf.yaml"))
        assert b"val_dice" in archive.read("README.md")
    assert stated["name"] == "My model"
    assert stated["outputs"][0]["axes"][1]["channel_names"] == ["gland", "blood_vessel"]
    assert stated["inputs"][0]["axes"][2]["scale"] == CARD.mpp
    assert stated["authors"] == [{"name": "A. B."}]
    (operators,) = onnx.load(folder / "m.onnx").opset_import
    assert stated["weights"]["onnx"]["opset_version"] == operators.version


@pytest.mark.parametrize("name", ["m.onnx", "m.pt2"])
def test_files_name_no_folder_of_this_machine(packed, name):
    content = (packed[0] / name).read_bytes()
    for folder in (sys.prefix, Path(pack.__file__).parent):
        assert str(folder).encode() not in content


def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch):
    class Wrong(pack.PackedNetwork):
        def forward(self, image):
            return super().forward(image) * 0.99

    monkeypatch.setattr(pack, "PackedNetwork", Wrong)
    source = checkpoint(tmp_path / "m.safetensors")
    with pytest.raises(OutputError, match=r"differ by .* from our own; expected at most 0\.001"):
        pack_model(source, PackTargets(torch_export=tmp_path / "m.pt2"))
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}


def test_names_and_targets_are_checked(tmp_path):
    with pytest.raises(ConfigError, match="expected at least one"):
        PackTargets()
    with pytest.raises(ConfigError, match=r"ending in \.pt2"):
        PackTargets(torch_export=tmp_path / "m.pt")


def test_pack_prints_differences_and_infer_takes_it(tmp_path, store):
    source = checkpoint(tmp_path / "m.safetensors", replace(CARD, tile_px=64))
    report = run_json("pack", source, "--onnx", tmp_path / "m.onnx")
    assert list(report["differences"]) == [str(tmp_path / "m.onnx")]
    result = run("pack", source, "--torch-export", tmp_path / "m.pt2")
    assert "largest difference from our own probabilities" in result.stdout
    assert "wsi-seg infer --checkpoint" in result.stdout
    for name in ("m.onnx", "m.pt2"):
        done = run_json("infer", store.path.parent, "--checkpoint", tmp_path / name, "--out",
                        tmp_path / f"{name}.zarr")  # fmt: skip
        assert done["tiles"] > 0
    json.dumps(report)
