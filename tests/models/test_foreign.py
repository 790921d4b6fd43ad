"""Exported networks: what is accepted and refused, and that no code is executed."""

import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import yaml
from torch import nn

from tests.cards import make_card
from tests.network_files import save_onnx, save_pt2, save_script, small
from wsi_seg.errors import CheckpointError, ConfigError
from wsi_seg.models.card_file import read_card_file
from wsi_seg.models.exported_file import is_arithmetic
from wsi_seg.models.file_network import single_tensor
from wsi_seg.models.foreign import card_for, measure_file, network_digest, open_network

CARD = make_card("a", "b", architecture=None, encoder=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Export the same layers in every format, with dynamic and with fixed shapes."""
    found = tmp_path_factory.mktemp("networks")
    save_pt2(found / "any.pt2", small())
    save_pt2(found / "fixed.pt2", small(), shapes=None)
    save_onnx(found / "any.onnx", small())
    save_onnx(found / "fixed.onnx", small(), shapes=None)
    save_script(found / "any.pt", small())
    return found


def opened(path):
    return open_network(path, trust=path.suffix == ".pt")


FILES = ["any.pt2", "any.onnx", "any.pt", "fixed.pt2", "fixed.onnx"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_batch_size_works_with_any_file(folder, name, count):
    network = open_network(folder / name, trust=name.endswith(".pt"))
    images = torch.randn(count, 3, 64, 64)
    with torch.no_grad():
        found, expected = network(images), small()(images)
    assert (found.shape, found.dtype) == (expected.shape, torch.float32)
    assert torch.allclose(found, expected, atol=1e-5)
    assert network.form.batch == (2 if name.startswith("fixed") else None)


@pytest.mark.parametrize("name", FILES)
def test_memory_of_a_file_is_measured(folder, name):
    found = measure_file(opened(folder / name), CARD)
    values = sum(t.numel() for t in small().state_dict().values() if t.is_floating_point())
    assert values <= found.parameters
    assert 6 * 8 <= found.values_per_px <= 6 * 8 * 4  # eight channels, and possibly fused layers


@pytest.mark.parametrize("name", FILES)
def test_files_pickle_by_name_and_have_no_parameters_to_convert(folder, name):
    network = open_network(folder / name, trust=name.endswith(".pt"))
    assert list(network.parameters()) == list(network.buffers()) == []
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = network(images)
        assert torch.equal(network.to(torch.bfloat16).eval()(images), before)


@pytest.mark.parametrize("name", ["fixed.pt2", "fixed.onnx"])
def test_a_fixed_size_must_be_the_tile(folder, name):
    with pytest.raises(CheckpointError, match="takes images of 64 x 64 pixels, but tiles have 128"):
        measure_file(opened(folder / name), make_card("a", "b", tile_px=128))
    network = open_network(folder / name)
    with pytest.raises(ConfigError, match="does not take 2 images of 32 x 32"), torch.no_grad():
        network(torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize("name", ["any.pt2", "any.onnx", "any.pt"])
def test_classes_and_channels_must_agree(folder, name):
    with pytest.raises(
        CheckpointError, match=r"returns \(1, 2, 64, 64\).*expected \(1, 3, 64, 64\)"
    ):
        measure_file(opened(folder / name), make_card("a", "b", "c"))
    four = make_card("a", "b", in_channels=4, mean=(0.5,) * 4, std=(0.5,) * 4)
    with pytest.raises((CheckpointError, ConfigError), match=r"3 channels|does not take"):
        measure_file(opened(folder / name), four)


class Two(nn.Module):
    def forward(self, a, b):
        return a + b


class Many(nn.Module):
    def forward(self, x):
        return {"out": x[:, :2] * 2, "aux": x}


class Only(nn.Module):
    def forward(self, x):
        return {"out": x[:, :2] * 2}


def test_several_inputs_or_outputs_are_refused(tmp_path):
    one = torch.randn(1, 3, 64, 64)
    torch.export.save(torch.export.export(Two(), (one, one)), tmp_path / "two.pt2")
    with pytest.raises(CheckpointError, match="takes 2 inputs"):
        open_network(tmp_path / "two.pt2")
    for save, name in ((save_pt2, "many.pt2"), (save_onnx, "many.onnx")):
        save(tmp_path / name, Many())
        with pytest.raises(ConfigError, match="several outputs"):
            measure_file(opened(tmp_path / name), CARD)
        save(tmp_path / name, Only())
        assert open_network(tmp_path / name)(one).shape == (1, 2, 64, 64)
    flat = torch.export.export(nn.Linear(3, 2), (torch.randn(5, 3),))
    torch.export.save(flat, tmp_path / "flat.pt2")
    with pytest.raises(CheckpointError, match="input of 2 axes"):
        open_network(tmp_path / "flat.pt2")


def test_only_a_single_tensor_is_a_map():
    one = torch.ones(1)
    assert single_tensor({"out": [one]}) is one
    assert single_tensor({"out": one, "aux": one}) is None
    assert single_tensor("text") is None


def test_images_are_rounded_for_uint8_inputs(tmp_path):
    class Counts(nn.Module):
        def forward(self, x):
            return x[:, :2].float() + 0.25

    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    torch.export.save(torch.export.export(Counts(), (images,)), tmp_path / "b.pt2")
    found = open_network(tmp_path / "b.pt2")(torch.full((1, 3, 64, 64), 199.9996))
    assert found.unique().tolist() == [200.25]


# No code of a file is executed


def rewritten(source: Path, target: Path, change, extra: Any = None) -> Path:
    """Copy a torch.export file with modified JSON and other parts."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(".json"):
                values = json.loads(content)
                content = json.dumps(change(name, values) or values).encode()
            new.writestr(name, extra if extra and "sample_inputs" in name else content)
    return target


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_file_whose_guards_run_code_is_refused(folder, tmp_path):
    code = f"__import__('pathlib').Path({str(tmp_path / 'ran')!r}).touch() is None"

    def change(name, values):
        if name.endswith("models/model.json"):
            values["guards_code"] = [*values["guards_code"], code]

    bad = rewritten(folder / "any.pt2", tmp_path / "bad.pt2", change)
    with pytest.raises(CheckpointError, match=r"holds the expression.*--trust"):
        open_network(bad)
    assert not (tmp_path / "ran").exists()
    open_network(bad, trust=True)(torch.randn(1, 3, 64, 64))
    assert (tmp_path / "ran").exists()  # so only the refusal prevents it


def first_node(values):
    return values["graph_module"]["graph"]["nodes"][0]


def set_target(name, values):
    if name.endswith("models/model.json"):
        first_node(values)["target"] = "torch.hub.os.system"


def set_file_operator(name, values):
    if name.endswith("models/model.json"):
        first_node(values)["target"] = "torch.ops.aten.from_file.default"


def set_pickled(name, values):
    if "weights_config" in name:
        for part in values["config"].values():
            part["use_pickle"] = True


def set_object(name, values):
    if "constants_config" in name:
        values["config"]["x"] = {"path_name": "opaque_obj_0", "use_pickle": False}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_target, "the operator torch.hub.os.system"),
        (set_file_operator, "the operator torch.ops.aten.from_file"),
        (set_pickled, "pickled tensors"),
        (set_object, "an object opaque_obj_0"),
    ],
)
def test_a_file_with_more_than_arithmetic_is_refused(folder, tmp_path, change, said):
    bad = rewritten(folder / "any.pt2", tmp_path / "bad.pt2", change)
    with pytest.raises(CheckpointError, match=said) as caught:
        open_network(bad)
    assert str(caught.value).count(str(bad)) == 1


class Halved(nn.Module):
    """U-Net-like layers, for whose sizes torch generates guards with sym functions."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(6, 2, 3, padding=1)

    def forward(self, images):
        half = nn.functional.max_pool2d(images, 2)
        wide = nn.functional.interpolate(half, scale_factor=2.0)
        return self.conv(torch.cat([wide, images], dim=1))


def test_halved_sizes_need_no_trust(tmp_path):
    network = Halved().eval()
    with torch.no_grad():
        path, images = save_pt2(tmp_path / "halved.pt2", network), torch.randn(2, 3, 32, 32)
        assert torch.allclose(open_network(path)(images), network(images), atol=1e-5)


def test_pickles_and_libraries_inside_are_refused(folder, tmp_path):
    stream = io.BytesIO()
    torch.save(Bomb(tmp_path / "ran"), stream)
    bad = rewritten(folder / "any.pt2", tmp_path / "a.pt2", lambda *_: None, stream.getvalue())
    with pytest.raises(CheckpointError, match="sample inputs"):
        open_network(bad)
    shutil.copy(folder / "any.pt2", tmp_path / "b.pt2")
    with zipfile.ZipFile(tmp_path / "b.pt2", "a") as archive:
        archive.writestr("any/data/aotinductor/model/model.so", b"")
    with pytest.raises(CheckpointError, match=r"the file data/aotinductor/model/model.so"):
        open_network(tmp_path / "b.pt2")
    assert not (tmp_path / "ran").exists()


def test_torchscript_needs_trust(folder):
    with pytest.raises(CheckpointError, match="--trust"):
        open_network(folder / "any.pt")


@pytest.mark.parametrize("name", ["a.pt2", "a.onnx", "a.pt"])
def test_damaged_and_missing_files_are_reported(tmp_path, name):
    with pytest.raises(CheckpointError, match="there is no file"):
        open_network(tmp_path / name)
    (tmp_path / name).write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(CheckpointError, match=f"cannot read.*{name}"):
        open_network(tmp_path / name, trust=name == "a.pt")


@pytest.mark.parametrize(
    "text",
    [
        "s0.__class__",
        "open('a')",
        "(lambda: 0)()",
        "[x for x in y]",
        "S('1 + 1')",
        "a if b",
        "torch.load(a)",
        "torch.hub.sym_max(a)",
    ],
)
def test_non_arithmetic_expressions_are_detected(text):
    assert not is_arithmetic(text)


# Cards


def stated(**changes):
    values = {"classes": ["gland", "vessel"], "mpp": 0.5, "tile_px": 64, "output": "logits",
              "mean": [0.5] * 3, "std": [0.25] * 3}  # fmt: skip
    return values | changes


def test_a_card_is_given_or_embedded_or_next_to_the_file(folder, tmp_path):
    path = Path(shutil.copy(folder / "any.onnx", tmp_path / "net.onnx"))
    with pytest.raises(CheckpointError, match=r"no model card; expected net.yaml"):
        card_for(open_network(path), None)
    (tmp_path / "net.json").write_text(json.dumps(stated(tile_px=96)))
    assert card_for(open_network(path), None).tile_px == 96
    (tmp_path / "net.yaml").write_text(yaml.safe_dump(stated()))
    found = card_for(open_network(path), None)
    assert (found.classes.names, found.tile_px, found.output) == (("gland", "vessel"), 64, "logits")
    assert card_for(open_network(path), CARD) is CARD
    (tmp_path / "other.yml").write_text(yaml.safe_dump(stated(mpp=None)))
    assert card_for(open_network(path), tmp_path / "other.yml").mpp is None
    assert network_digest(path, found) != network_digest(path, CARD)


def test_without_mean_and_std_values_stay_0_to_255(tmp_path):
    values = {k: v for k, v in stated(output="probabilities").items() if k not in ("mean", "std")}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(values))
    found = read_card_file(tmp_path / "a.yaml")
    assert (found.mean, found.std) == ((0.0,) * 3, (1 / 255,) * 3)
    assert found.output == "probabilities"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1, 2], "expected a mapping"),
        (stated(output="maps"), "logits"),
        ({k: v for k, v in stated().items() if k != "output"}, "output: logits"),
        (stated(classes=[]), "classes"),
        (stated(mean=[0.5]), "got 1 mean and 3"),
        (stated(colour=1), "colour"),
    ],
)
def test_invalid_cards_are_explained(tmp_path, values, said):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(CheckpointError, match=said):
        read_card_file(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("{unclosed")
    with pytest.raises(CheckpointError, match="not a model card"):
        read_card_file(tmp_path / "a.yaml")


def test_a_file_with_a_newer_opset_is_refused(folder, tmp_path):
    made = onnx.load(folder / "any.onnx")
    made.opset_import[0].version = 999
    onnx.save(made, tmp_path / "new.onnx")
    with pytest.raises(CheckpointError, match=r"Opset 999 .* till opset \d+"):
        open_network(tmp_path / "new.onnx")
