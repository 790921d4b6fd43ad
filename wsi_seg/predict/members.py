"""Owns the predictors of a model's members, with an LRU cache of those in memory."""

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
    """Load a member and build its `Predictor`.

    Raises
    ------
    CheckpointError
        If the file is missing or damaged.
    ConfigError
        If there is no such device, or it does not support this precision.
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
    """Predictors of all members; the most recently used are kept in memory.

    Parameters
    ----------
    model
        The model.
    build
        Builds the predictor of a member; see `load_predictor`.
    resident
        Maximum number of members in memory; 0 keeps all.
    """

    def __init__(
        self, model: Model, build: Callable[[Member], TilePredictor], *, resident: int = 0
    ) -> None:
        self._members = model.members
        self._build = build
        self._limit = resident or len(model.members)
        self._loaded: OrderedDict[int, TilePredictor] = OrderedDict()
        # Drift of members that were evicted.
        self._drifts = [PrecisionDrift()] * len(model.members)

    def __len__(self) -> int:
        return len(self._members)

    def get(self, index: int) -> TilePredictor:
        """Return the predictor of a member, loading it if it is not in memory."""
        if index not in self._loaded:
            while len(self._loaded) >= self._limit:
                oldest = next(iter(self._loaded))
                self._drifts[oldest] = self.drift(oldest)
                del self._loaded[oldest]
            self._loaded[index] = self._build(self._members[index])
        self._loaded.move_to_end(index)
        return self._loaded[index]

    def each(self) -> list["MemberPredictor"]:
        """Return a predictor for each member that loads its network on demand.

        All members are loaded once here, so that a damaged file fails before any work is done.
        """
        return [MemberPredictor(self, index) for index in range(len(self))]

    def drift(self, index: int) -> PrecisionDrift:
        """Return the precision drift of a member; see `Predictor.drift`."""
        predictor, known = self._loaded.get(index), self._drifts[index]
        if isinstance(predictor, Predictor):
            return PrecisionDrift.largest([known, predictor.drift])
        return known


class MemberPredictor:
    """Predictor of one member, loaded on demand; see `predictor.TilePredictor`."""

    def __init__(self, predictors: MemberPredictors, index: int) -> None:
        self._predictors, self._index = predictors, index
        first = predictors.get(index)
        self.channels, self.device = first.channels, first.device

    def predict(self, tiles: torch.Tensor) -> torch.Tensor:
        """Predict probabilities of tiles; see `predictor.TilePredictor.predict`."""
        return self._predictors.get(self._index).predict(tiles)

    def warm_up(self, batch: int, tile_px: int) -> float:
        """Run one forward pass, which compiles the network; see `Predictor.warm_up`."""
        predictor = self._predictors.get(self._index)
        return predictor.warm_up(batch, tile_px) if isinstance(predictor, Predictor) else 0.0

    @property
    def drift(self) -> PrecisionDrift:
        """Precision drift; see `Predictor.drift`."""
        return self._predictors.drift(self._index)
