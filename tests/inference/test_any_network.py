"""Networks that we know nothing of: modules and files give what their own forward pass gives."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import torchvision
import yaml
from monai.networks.nets.unet import UNet
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3

from tests.cards import make_card
from tests.commands import run, run_json
from tests.network_files import ANY, save_onnx, save_pt2, save_script, small
from wsi_seg.classes import ClassTable
from wsi_seg.errors import CheckpointError, ConfigError
from wsi_seg.inference.array import Predictor
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer
from wsi_seg.predict.ensemble import Model, read_model
from wsi_seg.store import open_collection, open_predictions

OPTIONS = InferOptions(overlap=0.5, device="cpu", precision="fp32", batch=4)
SIDE = 128
CARD = make_card("a", "b", architecture=None, encoder=None, tile_px=SIDE)
THIRTY_TWOS = {0: torch.export.Dim.DYNAMIC, 2: 32 * torch.export.Dim("h", max=64),
               3: 32 * torch.export.Dim("w", max=64)}  # fmt: skip


class Out(nn.Module):
    """A network whose wanted output has a name."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)["out"]


def grandqc():
    """U-Net++ with an EfficientNet encoder, as GrandQC finds artefacts with, but small."""
    return smp.UnetPlusPlus("tu-test_efficientnet", encoder_depth=3, encoder_weights=None,
                            decoder_channels=(16, 8, 8), classes=2)  # fmt: skip


def monai():
    return UNet(2, 3, 2, channels=(8, 16, 32), strides=(2, 2), num_res_units=1)


def deeplab():
    """torchvision's DeepLab on the first layers of a MobileNet."""
    layers = torchvision.models.mobilenet_v3_small().features[:4]
    return Out(DeepLabV3(IntermediateLayerGetter(layers, {"3": "out"}), DeepLabHead(24, 2)))


NETWORKS = {"grandqc": (grandqc, THIRTY_TWOS), "monai": (monai, None), "deeplab": (deeplab, ANY),
            "sequential": (small, ANY)}  # fmt: skip


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    """A network in eval mode, and how its batch and size may be exported."""
    make, shapes = NETWORKS[request.param]
    torch.manual_seed(4)
    made = make().eval()
    random = torch.Generator().manual_seed(1)
    for name, values in made.named_buffers():  # of a trained network they are not 0 and 1
        if name.endswith("running_mean"):
            values.normal_(0, 0.2, generator=random)
        if name.endswith("running_var"):
            values.uniform_(0.5, 2, generator=random)
    return made, shapes


@pytest.fixture(scope="module")
def rgb():
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


@torch.no_grad()
def own_pass(network, card, rgb):
    """Probabilities ``(H, W, K)`` of the network alone on a whole image."""
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (card.mean, card.std))
    images = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
    return network((images - mean) / std).sigmoid()[0].permute(1, 2, 0).numpy()


def assert_same(found, expected):
    assert expected.std() > 0.001
    assert np.abs(found - expected).max() <= 0.51 / 255 + 1 / 16 / 255


def test_a_module_gives_its_own_forward_pass(network, rgb):
    found = Predictor.of(network[0], CARD, OPTIONS)(rgb)
    assert_same(found, own_pass(network[0], CARD, rgb))


@pytest.mark.parametrize("save", [save_pt2, save_onnx])
def test_a_file_gives_its_own_forward_pass(network, rgb, tmp_path, save):
    made, shapes = network
    path = save(tmp_path / f"net.{'onnx' if save is save_onnx else 'pt2'}", made, side=SIDE,
                shapes=shapes)  # fmt: skip
    found = Predictor.load(path, OPTIONS, card=CARD)(rgb)
    assert_same(found, own_pass(made, CARD, rgb))


def test_a_dictionary_is_refused_in_a_sentence_that_says_how_to_adapt_it():
    network = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=2
    )
    with pytest.raises(ConfigError, match=r"expected one tensor .*\['out'\]"):
        Model.of(network, CARD)


def test_exclusive_classes_are_the_argmax_of_the_network(rgb, tmp_path):
    card = replace(CARD, classes=ClassTable.named(["a", "b"], mode="exclusive"))
    torch.manual_seed(3)
    network = small(3)
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (card.mean, card.std))
    images = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        own = (network((images - mean) / std) * 9).softmax(1)[0]
    (best, second), argmax = own.topk(2, dim=0).values, own.argmax(0).numpy()
    clear = ((best - second) > 2 / 255).numpy()
    assert len(np.unique(argmax[clear])) == 3

    class Sharper(nn.Module):
        def forward(self, x):
            return network(x) * 9

    save_pt2(tmp_path / "net.pt2", Sharper())
    for predictor in (
        Predictor.of(Sharper().eval(), card, OPTIONS),
        Predictor.load(tmp_path / "net.pt2", OPTIONS, card=card),
    ):
        found = predictor.labels(rgb)
        assert np.array_equal(found[clear], argmax[clear])


class Fixed(nn.Module):
    """Takes one size alone, as a plain transformer does, and normalises inside."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.places = nn.Parameter(torch.linspace(-1, 1, SIDE * SIDE).reshape(1, 1, SIDE, SIDE))

    def forward(self, x):
        if x.shape[2:] != self.places.shape[2:]:
            raise ValueError(f"size {x.shape}")
        return self.norm(x)[:, :2] + self.places


def test_a_module_of_one_size_is_tried_at_its_tile(rgb):
    found = Predictor.of(Fixed().eval(), CARD, OPTIONS)(rgb)
    assert_same(found, own_pass(Fixed().eval(), CARD, rgb))


def test_probabilities_are_taken_as_they_are(rgb, tmp_path):
    class Sigmoid(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = small()

        def forward(self, x):
            return self.network(x).sigmoid()

    card = replace(CARD, output="probabilities")
    expected = own_pass(small(), CARD, rgb)
    assert_same(Predictor.of(Sigmoid().eval(), card, OPTIONS)(rgb), expected)
    save_onnx(tmp_path / "net.onnx", Sigmoid())
    assert_same(Predictor.load(tmp_path / "net.onnx", OPTIONS, card=card)(rgb), expected)


def card_text(**changes):
    values = {"classes": ["a", "b"], "mpp": 0.5, "tile_px": 64, "mean": [0.5] * 3,
              "std": [0.25] * 3, "output": "logits"}  # fmt: skip
    return yaml.safe_dump(values | changes)


def pixels_of(path):
    return open_predictions(path)["slide"].image[:, :]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Any batch and size, a batch of 2 of 64 px, and a trace; a card next to all of them."""
    folder = tmp_path_factory.mktemp("exported")
    save_onnx(folder / "a.onnx", small())
    save_pt2(folder / "b.pt2", small(), shapes=None)
    save_script(folder / "c.pt", small())
    for name in "abc":
        (folder / f"{name}.yaml").write_text(card_text())
    return folder


@pytest.fixture
def files(exported, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(exported, tmp_path, dirs_exist_ok=True)


def test_infer_takes_files_by_name(store, files):
    slides = store.path.parent
    card = replace(CARD, tile_px=64)
    infer(open_collection(slides), small(), files / "own.zarr", OPTIONS, card=card)
    expected = pixels_of(files / "own.zarr").astype(int)
    for name, words in (("a.onnx", ()), ("b.pt2", ()), ("c.pt", ("--trust",))):
        out = files / f"{name}.zarr"
        report = run_json("infer", slides, "--checkpoint", files / name, "--out", out, "--batch",
                          3, "--tta", "none", *words)  # fmt: skip
        assert (report["tiles"] > 3, report["precision"]) == (True, "fp32")
        assert np.abs(pixels_of(out) - expected).max() <= 1
    result = run("infer", slides, "--checkpoint", files / "c.pt", "--out", files / "no.zarr")
    assert result.exit_code == 1
    assert "--trust" in result.stderr
    assert not (files / "no.zarr").exists()


def test_workers_give_the_same_bytes(store, files):
    slides = open_collection(store.path.parent)
    model = read_model([files / "a.onnx", files / "b.pt2"])
    infer(slides, model, files / "one.zarr", OPTIONS)
    infer(slides, model, files / "two.zarr", OPTIONS, cluster="local:1")
    assert np.array_equal(pixels_of(files / "one.zarr"), pixels_of(files / "two.zarr"))


def test_what_a_file_cannot_do_is_said_before_any_work(store, files, rgb):
    slides = open_collection(store.path.parent)
    for options, said in (
        (replace(OPTIONS, precision="bf16"), "precision was fixed at export"),
        (replace(OPTIONS, compiled="on"), "--compile on"),
    ):
        with pytest.raises(ConfigError, match=said):
            infer(slides, files / "a.onnx", files / "no.zarr", options)
    with pytest.raises(ConfigError, match="does not take 2 images of 32 x 32"):
        Predictor.load(files / "b.pt2", replace(OPTIONS, tile_px=32))(rgb)
    (files / "b.yaml").write_text(card_text(tile_px=96))
    with pytest.raises(CheckpointError, match="tiles have 96; set tile_px"):
        infer(slides, files / "b.pt2", files / "no.zarr", OPTIONS)
    assert not (files / "no.zarr").exists()


def test_a_card_belongs_to_a_file_without_one(store, files):
    with pytest.raises(ConfigError, match="got a card for a model that has its own"):
        infer(open_collection(store.path.parent), Model.of(small(), CARD), card=CARD)
    with pytest.raises(ConfigError, match="same weights"):
        read_model([files / "a.onnx", files / "a.onnx"])
