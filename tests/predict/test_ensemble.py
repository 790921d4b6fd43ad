"""Ensembles: which members are in memory, and the drift of evicted ones."""

import pickle

import pytest
import torch
import yaml

from tests.cards import make_card
from wsi_seg.classes import ClassTable
from wsi_seg.errors import CheckpointError, ConfigError
from wsi_seg.models import build_network, save_checkpoint
from wsi_seg.models.checkpoint import shipped_checkpoint
from wsi_seg.predict.ensemble import Member, Model, newest_model, read_model
from wsi_seg.predict.members import MemberPredictors, load_predictor
from wsi_seg.predict.predictor import PrecisionDrift


def save(path, seed, **changes):
    torch.manual_seed(seed)
    card = make_card(**({"classes": ClassTable.named(["gland", "vessel"])} | changes))
    network = build_network(card.spec)
    save_checkpoint(path, network, card)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return [save(folder / f"{n}.safetensors", n) for n in range(3)]


class Toy:
    """Predicts its member's weight everywhere, and records when it is built."""

    channels = 1
    device = torch.device("cpu")
    made: list[float] = []  # noqa: RUF012 (of the class, on purpose)

    def __init__(self, member):
        self.weight = int(member.weight)
        self.made.append(self.weight)

    def predict(self, tiles):
        return torch.full((len(tiles), 1, *tiles.shape[1:3]), self.weight, dtype=torch.int32)


def toys(resident):
    Toy.made.clear()
    model = Model(tuple(Member(make_card(), str(n), weight=n) for n in range(3)))
    predictors = MemberPredictors(model, Toy, resident=resident)
    return predictors, predictors.each()


@pytest.mark.parametrize("resident", [0, 1, 2, 3])
def test_each_member_uses_its_own_predictor(resident):
    predictors, members = toys(resident)
    assert len(predictors) == 3
    tiles = torch.zeros(2, 5, 5, 3, dtype=torch.uint8)
    for _ in range(2):
        for number, member in enumerate(members):
            assert member.predict(tiles).unique().tolist() == [number]
            assert (member.channels, member.device) == (1, torch.device("cpu"))
    assert members[0].drift == PrecisionDrift()
    assert members[0].warm_up(1, 64) == 0


def test_the_most_recently_used_stay_in_memory():
    _, members = toys(resident=2)
    assert Toy.made == [0, 1, 2]  # each once, so that a damaged file fails early
    tiles = torch.zeros(1, 5, 5, 3, dtype=torch.uint8)
    for number in (1, 2, 1, 0, 1, 2):
        members[number].predict(tiles)
    assert Toy.made == [0, 1, 2, 0, 2]


def test_the_drift_of_an_evicted_member_is_kept(files):
    def build(member):
        return load_predictor(member, device="cpu", precision="bf16")

    predictors = MemberPredictors(read_model(files[:2]), build, resident=1)
    first, second = predictors.each()
    random = torch.Generator().manual_seed(0)
    tiles = torch.randint(256, (1, 64, 64, 3), dtype=torch.uint8, generator=random)
    first.predict(tiles)
    drift = first.drift
    assert drift.values > 0
    second.predict(tiles)
    assert first.drift == drift
    first.predict(tiles)
    assert first.drift == drift


def test_a_loaded_predictor_matches_its_card(files):
    (member,) = read_model(files[:1]).members
    predictor = load_predictor(member, device="cpu", precision="fp32", tta="hflip")
    assert predictor.channels == 2
    assert predictor.precision == "fp32"
    found = predictor.predict(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    assert torch.equal(found, found.flip(3))  # a black tile is symmetric
    with pytest.raises(CheckpointError, match="neither a file nor a network"):
        load_predictor(Member(member.card))


def test_members_hold_distinct_tensors(files, tmp_path):
    tiles = torch.full((1, 64, 64, 3), 99, dtype=torch.uint8)
    outputs = [
        load_predictor(member, device="cpu", precision="fp32").predict(tiles)
        for member in read_model(files).members
    ]
    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[1], outputs[2])
    twin = save(tmp_path / "twin.safetensors", 0, scores={"val_dice": 0.5})  # another card
    with pytest.raises(ConfigError, match="hold the same weights"):
        read_model([files[0], twin])


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"classes": ClassTable.named(["gland", "nerve"])}, "nerve"),
        ({"resize": "pad"}, "resize"),
        ({"classes": ClassTable.named(["gland", "vessel"], mode="exclusive")}, "class mode"),
    ],
)
def test_members_that_cannot_be_combined_are_refused(files, tmp_path, changes, word):
    other = save(tmp_path / "other.safetensors", 9, **changes)
    with pytest.raises(ConfigError, match=word):
        read_model([files[0], other])


def test_an_ensemble_file_has_members_weights_and_mode(files, tmp_path):
    assert newest_model(tmp_path) == shipped_checkpoint()
    rows = [
        {"checkpoint": str(path), "weight": weight}
        for path, weight in zip(files, (2.0, 1.0, 1.0), strict=True)
    ]
    path = tmp_path / "ensemble.yaml"
    path.write_text(yaml.safe_dump({"members": rows, "mode": "weighted"}))
    model = read_model([path])
    assert model.mode == "weighted"
    assert sorted(model.weights) == [1.0, 1.0, 2.0]
    assert newest_model(tmp_path) == path
    assert pickle.loads(pickle.dumps(model)) == model
    path.write_text(yaml.safe_dump({"members": rows}))
    with pytest.raises(ConfigError, match="mode: weighted"):
        read_model([path])
    path.write_text(yaml.safe_dump({"members": rows, "mood": "mean"}))
    with pytest.raises(ConfigError, match="mood"):
        read_model([path])
    with pytest.raises(ConfigError, match="without weights"):
        read_model(files, "weighted")
    with pytest.raises(ConfigError, match="got no checkpoint"):
        read_model([])


def test_a_member_that_is_an_ensemble_shares_its_weight_among_its_networks(files, tmp_path):
    def write(name, mode, *rows):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        members = [{"checkpoint": str(file), "weight": weight} for file, weight in rows]
        path.write_text(yaml.safe_dump({"members": members, "mode": mode}))
        return path

    write("inner/ensemble.yaml", "weighted", (files[0], 3.0), (files[1], 1.0))
    outer = write("outer.yaml", "weighted", ("inner/ensemble.yaml", 0.4), (files[2], 0.6))
    weights = {str(member.path): member.weight for member in read_model([outer]).members}
    expected = dict(zip(map(str, files), (0.3, 0.1, 0.6), strict=True))
    assert weights == pytest.approx(expected)
    for wrong in ("vote", "geometric"):
        write("inner/ensemble.yaml", wrong, (files[0], 3.0), (files[1], 1.0))
        with pytest.raises(ConfigError, match=f"has mode {wrong}; expected mean or weighted"):
            read_model([outer])
    write("inner/ensemble.yaml", "mean", ("../outer.yaml", 1.0))  # circular
    with pytest.raises(CheckpointError, match=r"outer\.yaml"):
        read_model([outer])


def test_members_do_not_depend_on_the_order_of_files(files):
    assert read_model(files) == read_model(files[::-1])
    assert read_model(files).identity() == read_model(files[::-1]).identity()
    assert read_model(files[:1]).identity() == read_model(files[:1]).members[0].digest


def test_a_model_lists_the_training_slides_of_all_members(tmp_path):
    paths = [
        save(
            tmp_path / f"{n}.safetensors", n,
            training={"name": "folds", "train_slides": [f"s{n}", "s9"], "validation_slides": []},
        )
        for n in range(2)
    ]  # fmt: skip
    model = read_model(paths)
    assert model.learned_from == {"s0", "s1", "s9"}
    assert model.training == {"name": "folds"}
