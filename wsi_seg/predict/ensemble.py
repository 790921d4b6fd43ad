"""Owns models for inference: one network or an ensemble, read from their files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from wsi_seg.choices import Mode
from wsi_seg.config.ensemble import read_ensemble
from wsi_seg.errors import CheckpointError, ConfigError
from wsi_seg.models import ModelCard, load_checkpoint, read_card, size_multiple
from wsi_seg.models.checkpoint import (
    newest_checkpoint,
    shipped_checkpoint,
    weights_digest,
)
from wsi_seg.models.digest import digest_of, module_digest
from wsi_seg.models.foreign import (
    card_for,
    is_network_file,
    measure_file,
    network_digest,
    open_network,
)
from wsi_seg.models.hub import fetch_model, is_hub_address
from wsi_seg.models.memory_estimate import (
    TRIAL_PX,
    MemoryEstimate,
    estimate_memory,
    measure_network,
)
from wsi_seg.models.trial import on_first_side
from wsi_seg.predict.combine import COMBINED

_CPU = torch.device("cpu")

# Ensemble file that training writes for all folds.
ENSEMBLE = "ensemble.yaml"


@dataclass(frozen=True, slots=True)
class Member:
    """One network of a model.

    Parameters
    ----------
    card
        Model card.
    digest
        SHA-256 of the file.
    weight
        Weight in the ensemble.
    path
        File of the network; None if it is in memory.
    network
        The network, if it has no file.
    estimate
        Memory use, if it was measured.
    trust
        Whether loading the file may execute code; see `models.foreign.open_network`.
    """

    card: ModelCard = field(compare=False)
    digest: str = ""
    weight: float = 1.0
    path: Path | None = None
    network: nn.Module | None = field(default=None, compare=False)
    estimate: MemoryEstimate | None = field(default=None, compare=False)
    trust: bool = field(default=False, compare=False)

    @property
    def is_foreign(self) -> bool:
        """Whether the file was exported by other software and is used unchanged."""
        return self.path is not None and is_network_file(self.path)

    def load(self, device: torch.device = _CPU) -> nn.Module:
        """Load the network in eval mode, on the CPU; an exported file is loaded on ``device``."""
        if self.network is not None:
            return self.network
        if self.path is None:
            raise CheckpointError("a member of an ensemble has neither a file nor a network")
        if self.is_foreign:
            return open_network(self.path, device, trust=self.trust)
        return load_checkpoint(self.path)[0]

    def memory(self, tile_px: int) -> MemoryEstimate:
        """Return the measured memory use, or estimate it for tiles of this side in pixels.

        Raises
        ------
        ConfigError
            If the network does not accept tiles of this side.
        """
        return self.estimate or estimate_memory(self.card.spec, tile_px)


@dataclass(frozen=True, slots=True)
class Model:
    """One network or an ensemble: members with the same classes, sorted by digest.

    Parameters
    ----------
    members
        At least one member.
    mode
        How predictions are combined; see `combine.combine`.

    Examples
    --------
    >>> Model.of(network, card).card.classes.names  # doctest: +SKIP
    ('gland',)
    """

    members: tuple[Member, ...]
    mode: Mode = "mean"

    @classmethod
    def of(cls, network: nn.Module, card: ModelCard, digest: str = "") -> "Model":
        """Build a model from a network in memory and its card.

        Parameters
        ----------
        network
            Maps ``(B, C, H, W)`` float32 to ``(B, outputs, H, W)``; see `ClassTable.outputs`.
        card
            Model card.
        digest
            Digest that identifies the network; empty computes it from the weights.

        Raises
        ------
        ConfigError
            If the network's output is not one map per class.
        """
        estimate = _measured(network, card)
        digest = digest or module_digest(network)
        return cls((Member(card, digest, network=network, estimate=estimate),))

    @property
    def card(self) -> ModelCard:
        """Card of the first member; all members have the same classes."""
        return self.members[0].card

    @property
    def training(self) -> dict[str, object]:
        """Training record of the first member without slide names, which are in `learned_from`."""
        names = ("train_slides", "validation_slides")
        return {key: value for key, value in self.card.training.items() if key not in names}

    @property
    def learned_from(self) -> frozenset[str]:
        """Names of all members' training slides, as listed in their cards."""
        lists = [member.card.training.get("train_slides") for member in self.members]
        return frozenset(str(name) for found in lists if isinstance(found, list) for name in found)

    @property
    def weights(self) -> tuple[float, ...]:
        """Weight of each member."""
        return tuple(member.weight for member in self.members)

    def precision(self, chosen: str) -> str:
        """Return the precision of all members: ``chosen``, or fp32 if one is an exported file.

        Raises
        ------
        ConfigError
            If another precision was chosen for an exported file, which cannot be converted.
        """
        foreign = next((member.path for member in self.members if member.is_foreign), None)
        if foreign is None:
            return chosen
        if chosen not in ("auto", "fp32"):
            raise ConfigError(
                f"got precision {chosen} for {foreign}, whose precision was fixed at export; "
                "expected auto or fp32"
            )
        return "fp32"

    def identity(self) -> object:
        """Return everything that determines the bytes of a prediction, as JSON values."""
        if len(self.members) == 1:
            return self.members[0].digest
        rows = [{"checkpoint": m.digest, "weight": m.weight} for m in self.members]
        return {"mode": self.mode, "combined": COMBINED[self.mode], "members": rows}


def _measured(network: nn.Module, card: ModelCard) -> MemoryEstimate:
    """Run a network once on zeros to measure its memory and check its output against the card."""
    multiple = size_multiple(network)
    tiny, tile = (side + -side % multiple for side in (min(card.tile_px, TRIAL_PX), card.tile_px))
    # Restore the mode of each module: training may keep some, such as norms, in eval mode.
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        side, found, shape = on_first_side(
            lambda side: (side, *measure_network(network, card.in_channels, side)),
            tiny,
            tile,
            expected="expected one that accepts tiles of the card's tile_px",
        )
    finally:
        for module, training in modes:
            module.training = training
    expected = (1, card.classes.outputs, side, side)
    if shape != expected:
        given = shape or "no tensor, or several,"
        raise ConfigError(
            f"got a network that returns {given} for an image (1, {card.in_channels}, {side}, "
            f"{side}); expected one tensor {expected}: a logit per class and pixel"
            f"{', after that of the background' if card.classes.is_exclusive else ''}; wrap it in "
            "a module whose forward returns that, such as self.net(x)['out']"
        )
    return found


def newest_model(folder: Path) -> Path:
    """Return the newest model under a folder: an ensemble, otherwise the best checkpoint.

    Without either, return the model that is shipped with the package.
    """
    ensemble = folder / ENSEMBLE
    if ensemble.is_file():
        return ensemble
    return newest_checkpoint(folder) or shipped_checkpoint()


def read_model(
    paths: Sequence[Path | str],
    mode: Mode | None = None,
    *,
    card: ModelCard | Path | None = None,
    trust: bool = False,
) -> Model:
    """Read a model from its files, without keeping weights in memory.

    Parameters
    ----------
    paths
        Checkpoints, with equal weights; or one ensemble file (YAML). Exported networks (``.pt2``,
        ``.onnx``, ``.pt``) are run once to check them against their card. Addresses
        ``hf://OWNER/NAME[@REVISION]`` are downloaded from the Hugging Face Hub.
    mode
        How to combine members; None uses the mode of the ensemble file, or ``mean``.
    card
        Model card of exported networks, or its file; None uses the one in each file or next to it.
    trust
        Whether loading a file may execute code; loading TorchScript always may.

    Returns
    -------
    Model
        One network or an ensemble, for `infer`.

    Raises
    ------
    CheckpointError
        If a file is missing, damaged, not a checkpoint, or does not match its card.
    ConfigError
        If members have different classes, or two members have the same weights.
    MissingLibraryError
        If a file needs a library that is not installed.

    Examples
    --------
    >>> read_model([Path("a.safetensors"), Path("b.safetensors")], "mean")  # doctest: +SKIP
    """
    files = [fetch_model(str(path)) if is_hub_address(path) else Path(path) for path in paths]
    weights = [1.0] * len(paths)
    if len(files) == 1 and files[0].suffix in (".yaml", ".yml"):
        ensemble = read_ensemble(files[0])
        files = [Path(member.checkpoint) for member in ensemble.members]
        weights = [member.weight for member in ensemble.members]
        mode = mode or ensemble.mode
    if not files:
        raise ConfigError("got no checkpoint; expected one or more, or an ensemble file (YAML)")
    mode = mode or "mean"
    if mode == "mean" and len(set(weights)) > 1:
        raise ConfigError(f"got mode mean and weights {weights}; expected mode: weighted")
    if mode == "weighted" and len(files) == len(paths) > 1:
        raise ConfigError(
            "got mode weighted and checkpoints without weights; write an ensemble file:\n"
            "members:\n  - {checkpoint: a.safetensors, weight: 2}\n  ..."
        )
    found = [
        _foreign(path, weight, card, trust=trust) if is_network_file(path) else _own(path, weight)
        for path, weight in zip(files, weights, strict=True)
    ]
    if card is not None and not all(member.is_foreign for member in found):
        raise ConfigError("got a card for a checkpoint, which has its own; leave the card out")
    _require_distinct(found)
    _require_same_classes(found)
    return Model(tuple(sorted(found, key=lambda member: member.digest)), mode)


def _own(path: Path, weight: float) -> Member:
    return Member(read_card(path), digest_of(path), weight, path.absolute())


def _foreign(path: Path, weight: float, card: ModelCard | Path | None, *, trust: bool) -> Member:
    """Build the member of an exported file, running it once."""
    network = open_network(path, trust=trust)
    stated = card_for(network, card)
    estimate = measure_file(network, stated)
    digest = network_digest(path, stated)
    return Member(stated, digest, weight, path.absolute(), estimate=estimate, trust=trust)


def _require_distinct(members: Sequence[Member]) -> None:
    """Refuse members with the same weights, whatever their names and cards."""
    seen: dict[str, Path | None] = {}
    for member in members if len(members) > 1 else ():
        if member.path is None:
            continue
        digest = member.digest if member.is_foreign else weights_digest(member.path)
        if digest in seen:
            raise ConfigError(
                f"{member.path} and {seen[digest]} hold the same weights; expected distinct "
                "members: remove one, or give it a larger weight"
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
                    f"{member.path} has {name} {ours!r} and {first.path} has {theirs!r}; expected "
                    "the same for all members of an ensemble"
                )


def _resized(card: ModelCard) -> tuple[str, int | tuple[int, int]] | None:
    """Return how whole slides are resized, which must be equal for all members."""
    return None if card.resize is None else (card.resize, card.resize_px or card.tile_px)
