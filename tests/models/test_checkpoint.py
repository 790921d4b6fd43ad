import json
import os
import pickle
import shutil
import struct
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from wsi_seg.classes import ClassTable
from wsi_seg.errors import CheckpointError, ConfigError, OutputError
from wsi_seg.models import ModelCard, build_network, load_checkpoint, read_card, save_checkpoint
from wsi_seg.models.card import card_from_json
from wsi_seg.models.checkpoint import newest_checkpoint
from wsi_seg.models.digest import digest_of


@pytest.fixture(scope="module")
def card():
    return ModelCard(
        architecture="Unet",
        encoder="mobilenet_v2",
        in_channels=3,
        classes=ClassTable.named(["gland", "vessel"], ["#112233", None]),
        mpp=0.5,
        tile_px=64,
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
        scores={"val_dice": 0.9},
        training={"slides": ["a", "b"]},
        min_object_um2=12.5,
    )


def test_a_card_keeps_its_mode_and_one_without_is_as_before(card):
    text = json.dumps(card.to_json())
    assert isinstance(json.loads(text)["classes"], list)
    assert card_from_json(text) == card
    assert card.spec.classes == 2
    classes = ClassTable.named(["gland", "vessel"], mode="exclusive")
    exclusive = replace(card, classes=classes)
    assert card_from_json(json.dumps(exclusive.to_json())) == exclusive
    assert exclusive.spec.classes == 3


@pytest.fixture(scope="module")
def network(card):
    torch.manual_seed(0)
    return build_network(card.spec).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory, network, card):
    path = tmp_path_factory.mktemp("model") / "deep" / "best.safetensors"
    save_checkpoint(path, network, card)
    return path


def test_a_network_round_trips_with_its_card(saved, network, card):
    state = torch.random.get_rng_state()
    loaded, found = load_checkpoint(saved)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert found == card
    assert not loaded.training
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        assert torch.equal(loaded(image), network(image))


def test_the_same_network_has_the_same_bytes(tmp_path, network, card):
    # The order of safetensors' metadata differs from call to call.
    for number in range(8):
        save_checkpoint(tmp_path / f"{number}.safetensors", network, card)
    assert len({path.read_bytes() for path in tmp_path.glob("*.safetensors")}) == 1


def test_the_card_next_to_the_file_is_the_one_inside(saved, card):
    assert json.loads(saved.with_suffix(".json").read_text()) == json.loads(
        json.dumps(card.to_json())
    )
    assert [path.name for path in sorted(saved.parent.iterdir())] == [
        "best.json",
        "best.safetensors",
    ]


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_refused_by_content_and_never_run(tmp_path, name, zipped):
    path = tmp_path / name

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    if zipped:
        torch.save({"weights": Evil()}, path)
    else:
        path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match="is a pickle"):
        load_checkpoint(path)
    assert not (tmp_path / "harm").exists()


def test_a_header_length_like_pickle_magic_bytes_is_accepted(tmp_path):
    path = tmp_path / "model.safetensors"
    header = b'{"__metadata__":{}}'.ljust(0x0280)
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(CheckpointError, match="no model card"):
        load_checkpoint(path)


def test_foreign_safetensors_need_a_card(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="no model card"):
        read_card(path)


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint .*nothing\.safetensors"):
        load_checkpoint(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"tile_px": 0},
        {"mpp": -1},
        {"classes": []},
        {"mean": [0.5]},
        {"std": [0, 1, 1]},
        {"architecture": "Nonet"},
        {"encoder": "resnet18"},
        {"format": 99},
        {"extra": 1},
    ],
)
def test_an_invalid_card_is_refused(tmp_path, network, card, change):
    path = tmp_path / "model.safetensors"
    values = json.dumps(card.to_json() | change)
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, path, metadata={"wsi_seg": values})
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


def test_a_card_of_an_earlier_format_is_refused(tmp_path, network, card):
    path = tmp_path / "model.safetensors"
    values = card.to_json() | {"format": 1, "fit": None}
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, path, metadata={"wsi_seg": json.dumps(values)})
    with pytest.raises(CheckpointError, match="it has format 1; expected 2; train again"):
        load_checkpoint(path)


@given(data=st.data())
def test_a_damaged_file_is_a_checkpoint_error(saved, tmp_path_factory, data):
    content = saved.read_bytes()
    header = struct.unpack("<Q", content[:8])[0]
    keep = data.draw(st.integers(0, len(content) - 1), label="bytes kept")
    where = data.draw(st.integers(0, header + 7), label="byte changed")
    broken = bytearray(content[:keep]) if data.draw(st.booleans()) else bytearray(content)
    if where < len(broken):
        broken[where] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("broken") / "best.safetensors"
    path.write_bytes(broken)
    with suppress(CheckpointError):  # any other error, a crash or a hang is a bug
        read_card(path)


def test_an_unwritable_place_is_an_output_error(tmp_path, network, card):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        save_checkpoint(tmp_path / "file" / "best.safetensors", network, card)
    with pytest.raises(OutputError, match="ending in"):
        save_checkpoint(tmp_path / "best.pt", network, card)


def test_digest_and_newest(tmp_path, saved):
    assert len(digest_of(saved)) == 64
    assert newest_checkpoint(saved.parent.parent) == saved
    shutil.copyfile(saved, saved.with_name("epoch_0001.safetensors"))
    os.utime(saved, (1, 1))  # other checkpoints of the run may be newer than the best
    assert newest_checkpoint(saved.parent.parent) == saved
    assert newest_checkpoint(tmp_path / "none") is None


def test_the_error_for_an_earlier_format_suggests_a_remedy():
    with pytest.raises(ConfigError) as caught:
        card_from_json('{"format": 1}')
    assert str(caught.value) == (
        "it has format 1; expected 2; train again, or use the version of wsi_seg that wrote it"
    )
