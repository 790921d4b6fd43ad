"""Owns what predicts: one network or several, their files, and which of them are in memory."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from wsi_seg.choices import Mode, Tta
from wsi_seg.config.ensemble import read_ensemble
from wsi_seg.errors import CheckpointError, ConfigError
from wsi_seg.models import ModelCard, load_checkpoint, read_card, size_multiple
from wsi_seg.models.checkpoint import (
    digest_of,
    module_digest,
    newest_checkpoint,
    shipped_checkpoint,
    weights_digest,
)
from wsi_seg.models.memory_estimate import (
    TRIAL_PX,
    MemoryEstimate,
    estimate_memory,
    measure_network,
)
from wsi_seg.models.trial import on_first_side
from wsi_seg.predict.combine import COMBINED
from wsi_seg.predict.predictor import PrecisionDrift, Predictor, TilePredictor

# What folds leave together, see `learn.ensemble`.
ENSEMBLE = "ensemble.yaml"


@dataclass(frozen=True, slots=True)
class Member:
    """One network.

    Parameters
    ----------
    card
        Its model card.
    digest
        SHA-256 of its file.
    weight
        How much it counts.
    path
        Its file, or None for a network that is in memory.
    network, estimate
        Where there is no file: the network, and what it takes in memory.
    """

    card: ModelCard = field(compare=False)
    digest: str = ""
    weight: float = 1.0
    path: Path | None = None
    network: nn.Module | None = field(default=None, compare=False)
    estimate: MemoryEstimate | None = field(default=None, compare=False)

    def load(self) -> nn.Module:
        """Return the network, in eval mode."""
        if self.network is not None:
            return self.network
        if self.path is None:
            raise CheckpointError("a member of an ensemble has neither a file nor a network")
        return load_checkpoint(self.path)[0]

    def memory(self, tile_px: int) -> MemoryEstimate:
        """Estimate what the network takes for tiles; measured where it is in memory.

        Raises
        ------
        ConfigError
            If it does not take tiles of this side.
        """
        return self.estimate or estimate_memory(self.card.spec, tile_px)


@dataclass(frozen=True, slots=True)
class Model:
    """What predicts: members with the same classes, in the order of their digests.

    Parameters
    ----------
    members
        At least one.
    mode
        How they are combined; see `combine.combine`.

    Examples
    --------
    >>> Model.of(network, card).card.classes.names  # doctest: +SKIP
    ('gland',)
    """

    members: tuple[Member, ...]
    mode: Mode = "mean"

    @classmethod
    def of(cls, network: nn.Module, card: ModelCard, digest: str = "") -> "Model":
        """Model of one network in memory, and its card; without ``digest``, that of its weights.

        Raises
        ------
        ConfigError
            If the network gives anything but one logit map for each class.
        """
        estimate = _measured(network, card)
        digest = digest or module_digest(network)
        return cls((Member(card, digest, network=network, estimate=estimate),))

    @property
    def card(self) -> ModelCard:
        """Card of the first member; all have its classes."""
        return self.members[0].card

    @property
    def training(self) -> dict[str, object]:
        """How the first member was trained, without the names of slides: see `learned_from`."""
        names = ("train_slides", "validation_slides")
        return {key: value for key, value in self.card.training.items() if key not in names}

    @property
    def learned_from(self) -> frozenset[str]:
        """Slides that any member learned from, as far as their cards say."""
        lists = [member.card.training.get("train_slides") for member in self.members]
        return frozenset(str(name) for found in lists if isinstance(found, list) for name in found)

    @property
    def weights(self) -> tuple[float, ...]:
        """Weight of each member."""
        return tuple(member.weight for member in self.members)

    def identity(self) -> object:
        """Everything about it that decides the bytes of a prediction, as plain JSON values."""
        if len(self.members) == 1:
            return self.members[0].digest
        rows = [{"checkpoint": m.digest, "weight": m.weight} for m in self.members]
        return {"mode": self.mode, "combined": COMBINED[self.mode], "members": rows}


def _measured(network: nn.Module, card: ModelCard) -> MemoryEstimate:
    """Run a network once on zeros: what it takes, and whether it fits its card."""
    multiple = size_multiple(network)
    tiny, tile = (side + -side % multiple for side in (min(card.tile_px, TRIAL_PX), card.tile_px))
    # Each module gets its own mode back: training may keep some, such as norms, in eval mode.
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        side, found, shape = on_first_side(
            lambda side: (side, *measure_network(network, card.in_channels, side)),
            tiny,
            tile,
            expected="expected one that takes tiles of the card's tile_px",
        )
    finally:
        for module, training in modes:
            module.training = training
    expected = (1, card.classes.outputs, side, side)
    if shape != expected:
        raise ConfigError(
            f"got a network that gives {shape} for an image (1, {card.in_channels}, {side}, "
            f"{side}); expected {expected}: a logit of each class for each pixel"
            f"{', after one of the background' if card.classes.is_exclusive else ''}"
        )
    return found


def newest_model(folder: Path) -> Path:
    """Find what the last training under a folder left: its ensemble, else its best checkpoint.

    Where nothing was trained it is the model that ships with the package.
    """
    ensemble = folder / ENSEMBLE
    if ensemble.is_file():
        return ensemble
    return newest_checkpoint(folder) or shipped_checkpoint()


def read_model(paths: Sequence[Path], mode: Mode | None = None) -> Model:
    """Find out what predicts, without reading weights into memory.

    Parameters
    ----------
    paths
        Checkpoints, all of one weight; or one ensemble's YAML file.
    mode
        How to combine them; None takes the file's, or ``mean``.

    Returns
    -------
    Model
        One network or an ensemble, which `infer` takes.

    Raises
    ------
    CheckpointError
        If a file is missing, damaged or no checkpoint.
    ConfigError
        If members have different classes, or two of them the same weights.

    Examples
    --------
    >>> read_model([Path("a.safetensors"), Path("b.safetensors")], "mean")  # doctest: +SKIP
    """
    files, weights = list(paths), [1.0] * len(paths)
    if len(files) == 1 and files[0].suffix in (".yaml", ".yml"):
        ensemble = read_ensemble(files[0])
        files = [Path(member.checkpoint) for member in ensemble.members]
        weights = [member.weight for member in ensemble.members]
        mode = mode or ensemble.mode
    if not files:
        raise ConfigError("got no checkpoint; expected one, several, or an ensemble's YAML file")
    mode = mode or "mean"
    if mode == "mean" and len(set(weights)) > 1:
        raise ConfigError(f"got mode mean and the weights {weights}; expected mode: weighted")
    if mode == "weighted" and len(files) == len(paths) > 1:
        raise ConfigError(
            "got mode weighted and checkpoints without weights; give them in a file:\n"
            "members:\n  - {checkpoint: a.safetensors, weight: 2}\n  ..."
        )
    found = [
        Member(read_card(path), digest_of(path), weight, path.resolve())
        for path, weight in zip(files, weights, strict=True)
    ]
    _require_distinct(found)
    _require_same_classes(found)
    return Model(tuple(sorted(found, key=lambda member: member.digest)), mode)


def _require_distinct(members: Sequence[Member]) -> None:
    """Refuse two members with the same tensors, whatever their names and cards."""
    seen: dict[str, Path | None] = {}
    for member in members if len(members) > 1 else ():
        if member.path is None:
            continue
        digest = weights_digest(member.path)
        if digest in seen:
            raise ConfigError(
                f"{member.path} and {seen[digest]} hold the same weights; expected distinct "
                "members: leave one out, or give it a larger weight"
            )
        seen[digest] = member.path


def _require_same_classes(members: Sequence[Member]) -> None:
    first = members[0]
    for member in members[1:]:
        for name, ours, theirs in (
            ("classes", member.card.classes.names, first.card.classes.names),
            ("class mode", member.card.classes.mode, first.card.classes.mode),
            ("resize", _resized(member.card), _resized(first.card)),
        ):
            if ours != theirs:
                raise ConfigError(
                    f"{member.path} has {name} {ours!r} and {first.path} {theirs!r}; expected "
                    "the same of all members of an ensemble"
                )


def _resized(card: ModelCard) -> tuple[str, int] | None:
    """How a slide is resized as a whole, which only equal members can share."""
    return None if card.resize is None else (card.resize, card.tile_px)


def load_predictor(
    member: Member,
    *,
    device: str = "auto",
    precision: str = "auto",
    tta: Tta = "none",
    compiled: bool = False,
) -> Predictor:
    """Load a member and make it ready to predict; see `Predictor`.

    Raises
    ------
    CheckpointError
        If its file is missing or damaged.
    ConfigError
        If there is no such device, or it does not compute at this precision.
    """
    return Predictor(
        member.load(),
        member.card,
        device=device,
        precision=precision,
        tta=tta,
        compiled=compiled,
    )


class MemberPredictors:
    """Predictors of all members; a few are in memory, those used last.

    Parameters
    ----------
    model
        The members.
    build
        Makes the predictor of a member; see `load_predictor`.
    resident
        Members in memory at a time; 0 is all.
    """

    def __init__(
        self, model: Model, build: Callable[[Member], TilePredictor], *, resident: int = 0
    ) -> None:
        self._members = model.members
        self._build = build
        self._limit = resident or len(model.members)
        self._loaded: OrderedDict[int, TilePredictor] = OrderedDict()
        # Of members that were removed from memory.
        self._drifts = [PrecisionDrift()] * len(model.members)

    def __len__(self) -> int:
        return len(self._members)

    def get(self, index: int) -> TilePredictor:
        """Predictor of a member, loaded where it is not in memory."""
        if index not in self._loaded:
            while len(self._loaded) >= self._limit:
                least = next(iter(self._loaded))
                self._drifts[least] = self.drift(least)
                del self._loaded[least]
            self._loaded[index] = self._build(self._members[index])
        self._loaded.move_to_end(index)
        return self._loaded[index]

    def each(self) -> list["MemberPredictor"]:
        """One predictor for each member that loads its network when it is asked to predict.

        All are loaded once here, so that a damaged one is found out before any work.
        """
        return [MemberPredictor(self, index) for index in range(len(self))]

    def drift(self, index: int) -> PrecisionDrift:
        """Return what speed costs a member; see `Predictor.drift`."""
        predictor, known = self._loaded.get(index), self._drifts[index]
        if isinstance(predictor, Predictor):
            return PrecisionDrift.largest([known, predictor.drift])
        return known


class MemberPredictor:
    """Predictor of one member, in memory or not; see `predictor.TilePredictor`."""

    def __init__(self, predictors: MemberPredictors, index: int) -> None:
        self._predictors, self._index = predictors, index
        first = predictors.get(index)
        self.channels, self.device = first.channels, first.device

    def predict(self, tiles: torch.Tensor) -> torch.Tensor:
        """Probabilities of tiles; see `predictor.TilePredictor.predict`."""
        return self._predictors.get(self._index).predict(tiles)

    def warm_up(self, batch: int, tile_px: int) -> float:
        """Run, and compile, the one shape that will be predicted; see `Predictor.warm_up`."""
        predictor = self._predictors.get(self._index)
        return predictor.warm_up(batch, tile_px) if isinstance(predictor, Predictor) else 0.0

    @property
    def drift(self) -> PrecisionDrift:
        """What speed costs; see `Predictor.drift`."""
        return self._predictors.drift(self._index)
