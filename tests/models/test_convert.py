import json
import pickle

import pytest
import torch

from wsi_seg.errors import CheckpointError
from wsi_seg.models import NetworkSpec, build_network, load_checkpoint
from wsi_seg.models.convert import convert_checkpoint

SPEC = NetworkSpec("Unet", "tu-mobilenetv3_small_050", 3, 2)


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
    ],
)
def test_weights_are_taken_over(tmp_path, card, wrap):
    torch.manual_seed(3)
    network = build_network(SPEC).eval()
    torch.save(wrap(network.state_dict()), tmp_path / "model.pth")
    stated = convert_checkpoint(tmp_path / "model.pth", card, tmp_path / "ours.safetensors")
    loaded, found = load_checkpoint(tmp_path / "ours.safetensors")
    assert found == stated
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded(x), network(x))


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


def test_what_does_not_fit_is_explained(tmp_path, card):
    other = build_network(NetworkSpec("Unet", SPEC.encoder, 3, 5))
    torch.save(other.state_dict(), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="does not fit the card"):
        convert_checkpoint(tmp_path / "model.pth", card, tmp_path / "out.safetensors")
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="holds no named tensors"):
        convert_checkpoint(tmp_path / "none.pth", card, tmp_path / "out.safetensors")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(CheckpointError, match=r"could run code|cannot be read"):
        convert_checkpoint(tmp_path / "text.pth", card, tmp_path / "out.safetensors")
    with pytest.raises(CheckpointError, match="there is no file"):
        convert_checkpoint(tmp_path / "no.pth", card, tmp_path / "out.safetensors")


def test_a_card_that_is_not_a_card_is_explained(tmp_path, card):
    with pytest.raises(CheckpointError, match="cannot read card"):
        convert_checkpoint(tmp_path / "model.pth", tmp_path / "no.json", tmp_path / "o.safetensors")
    card.write_text("{}")
    with pytest.raises(CheckpointError, match="is not a model card"):
        convert_checkpoint(tmp_path / "model.pth", card, tmp_path / "o.safetensors")
