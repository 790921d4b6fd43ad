import json
import pickle

import pytest
import torch

from wsi_seg.errors import CheckpointError
from wsi_seg.models import NetworkSpec, build_network, load_checkpoint
from wsi_seg.models.convert import convert_checkpoint

SPEC = NetworkSpec("Unet", "tu-mobilenetv3_small_050", 3, 2)


def prefixed(start, state):
    return {start + name: tensor for name, tensor in state.items()}


@pytest.fixture
def card(tmp_path, card_for):
    path = tmp_path / "card.json"
    path.write_text(json.dumps(card_for(SPEC).to_json()))
    return path


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"epoch": 3, "state_dict": {f"model.{n}": t for n, t in state.items()}},
        lambda state: {"model": {f"module.{n}": t for n, t in state.items()}, "best": 0.5},
        lambda state: {f"_orig_mod.module.{n}": t for n, t in state.items()},
        lambda state: {"model_state": state, "optimizer": {"state": {0: {"exp": torch.ones(1)}}}},
        lambda state: {"state_dict_ema": state, "arch": "x"},
        lambda state: {"state_dict": prefixed("model.", state) | {"loss_fn.weight": torch.ones(1)}},
        lambda state: {"folds": [{"net": prefixed("seg.unet.", state)}], "seed": 1},
        lambda state: {n: t for n, t in state.items() if "num_batches" not in n},
    ],
)
def test_weights_are_converted(tmp_path, card, wrap):
    torch.manual_seed(3)
    network = build_network(SPEC).eval()
    torch.save(wrap(network.state_dict()), tmp_path / "model.pth")
    stated = convert_checkpoint(tmp_path / "model.pth", card, tmp_path / "ours.safetensors")
    loaded, found = load_checkpoint(tmp_path / "ours.safetensors")
    assert found == stated
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded(x), network(x))


@pytest.mark.parametrize(
    ("wrap", "named"),
    [
        (
            lambda state: {"state_dict": prefixed("model.", state) | prefixed("ema_model.", state)},
            ("'state_dict.model.'", "'state_dict.ema_model.'"),
        ),
        (
            lambda state: {"state_dict": state, "state_dict_ema": dict(state)},
            ("'state_dict.'", "'state_dict_ema.'"),
        ),
        (lambda state: {"models": [state, dict(state)]}, ("'models.0.'", "'models.1.'")),
    ],
)
def test_two_networks_in_a_file_are_reported(tmp_path, card, wrap, named):
    torch.save(wrap(build_network(SPEC).state_dict()), tmp_path / "two.pth")
    with pytest.raises(CheckpointError, match="more than once") as caught:
        convert_checkpoint(tmp_path / "two.pth", card, tmp_path / "out.safetensors")
    assert all(name in str(caught.value) for name in named)
    with pytest.raises(CheckpointError, match="more than once"):
        build_network(SPEC, weights=tmp_path / "two.pth")


def test_the_content_of_a_mismatched_file_is_listed(tmp_path, card):
    torch.save({"generator": {"a.w": torch.ones(1)}, "epoch": 3}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"it holds generator\.a \(1 tensor\)"):
        convert_checkpoint(tmp_path / "other.pth", card, tmp_path / "out.safetensors")


def test_a_recipe_starts_from_weights_among_other_values(tmp_path):
    torch.manual_seed(3)
    source = build_network(SPEC)
    loss = {"loss_fn.weight": torch.ones(1)}
    whole = {"state_dict": loss | prefixed("model.", source.state_dict())}
    torch.save(whole, tmp_path / "whole.pth")
    other = {"optimizer": {"state": {0: {"exp": torch.ones(1)}}}}
    encoder = source.get_submodule("encoder").state_dict()
    torch.save(other | {"student": prefixed("backbone.", encoder)}, tmp_path / "encoder.pth")
    for name, part in (("whole.pth", "decoder"), ("encoder.pth", "encoder")):
        found = build_network(SPEC, weights=tmp_path / name).get_submodule(part).state_dict()
        wanted = source.get_submodule(part).state_dict()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_a_recursive_container_is_read_once(tmp_path, card):
    state = build_network(SPEC).state_dict()
    whole: dict[str, object] = {"weights": dict(state)}
    whole["again"] = whole
    whole["lists"] = [[whole, whole]] * 9
    torch.save(whole, tmp_path / "loop.pth")
    convert_checkpoint(tmp_path / "loop.pth", card, tmp_path / "out.safetensors")


class Bomb:
    def __reduce__(self):
        return (print, ("boom",))


def test_a_file_that_could_run_code_is_refused(tmp_path, card, capsys):
    torch.save({"state_dict": {"w": torch.ones(1)}, "hook": Bomb()}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Bomb()))
    torch.save(build_network(SPEC), tmp_path / "c.pth")
    for name in ("a.pth", "b.pth", "c.pth"):
        with pytest.raises(CheckpointError, match="could run code"):
            convert_checkpoint(tmp_path / name, card, tmp_path / "out.safetensors")
    assert "boom" not in capsys.readouterr().out
    assert not (tmp_path / "out.safetensors").exists()


def test_mismatches_are_explained(tmp_path, card):
    other = build_network(NetworkSpec("Unet", SPEC.encoder, 3, 5))
    torch.save(other.state_dict(), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="does not match the card"):
        convert_checkpoint(tmp_path / "model.pth", card, tmp_path / "out.safetensors")
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="holds no named tensors"):
        convert_checkpoint(tmp_path / "none.pth", card, tmp_path / "out.safetensors")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(CheckpointError, match=r"could run code|cannot be read"):
        convert_checkpoint(tmp_path / "text.pth", card, tmp_path / "out.safetensors")
    with pytest.raises(CheckpointError, match="there is no file"):
        convert_checkpoint(tmp_path / "no.pth", card, tmp_path / "out.safetensors")


def test_an_invalid_card_file_is_explained(tmp_path, card):
    with pytest.raises(CheckpointError, match="cannot read card"):
        convert_checkpoint(tmp_path / "model.pth", tmp_path / "no.json", tmp_path / "o.safetensors")
    card.write_text("{}")
    with pytest.raises(CheckpointError, match="is not a model card"):
        convert_checkpoint(tmp_path / "model.pth", card, tmp_path / "o.safetensors")
