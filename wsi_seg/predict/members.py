"""Owns the predictors of a model's members, and which of them are in memory."""

from collections import OrderedDict
from collections.abc import Callable

import torch

from wsi_seg.choices import Tta
from wsi_seg.predict.device import pick_device
from wsi_seg.predict.ensemble import Member, Model
from wsi_seg.predict.predictor import PrecisionDrift, Predictor, TilePredictor


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
        member.load(pick_device(device)),
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
