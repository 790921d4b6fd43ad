"""Owns prediction of arrays in memory, tiled and blended like slides."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from wsi_seg.classes import ClassTable
from wsi_seg.errors import BatchError, ConfigError, RegionError, StoreError
from wsi_seg.geometry import Extent, Pyramid
from wsi_seg.inference.ensemble import StripJob
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.resample import resized
from wsi_seg.inference.run_plan import options_for, plan_inference
from wsi_seg.inference.runner import Load, Runner, load_network
from wsi_seg.inference.strips import PendingStrip
from wsi_seg.inference.task import StripTask
from wsi_seg.models import ModelCard
from wsi_seg.models.checkpoint import shipped_checkpoint
from wsi_seg.postprocess.label_map import label_map
from wsi_seg.predict.device import Device
from wsi_seg.predict.ensemble import Model, read_model
from wsi_seg.progress import Silent
from wsi_seg.reading.array import ArrayImage
from wsi_seg.store import Multiscale


@dataclass(frozen=True, slots=True, eq=False)
class ArraySlide:
    """An array with the interface of a slide without labels."""

    image: ArrayImage
    name: str = "array"
    slice_mm: float | None = None

    @property
    def pyramid(self) -> Pyramid:
        """Levels of the image."""
        return self.image.pyramid

    def label_names(self) -> tuple[str, ...]:
        """Return no labels: without a tissue mask, every tile is predicted."""
        return ()

    def label(self, name: str) -> Multiscale:
        """Raise `StoreError`: arrays have no labels."""
        raise StoreError(f"an array has no label {name!r}")

    def sibling(self, name: str) -> "ArraySlide | None":
        """Return None: an array is not part of a volume."""
        return None


class Predictor:
    """Predicts arrays of any size, tiled and blended like slides.

    Parameters
    ----------
    model
        One network or an ensemble.
    options
        Overlap, blending, device and so on, as for slides; adaptive overlap is not supported.
    load
        Loads the predictor of a member.

    Raises
    ------
    ConfigError
        If the overlap is adaptive.

    Examples
    --------
    >>> predictor = Predictor.load()  # the included model, or a checkpoint  # doctest: +SKIP
    >>> probabilities = predictor(rgb)  # (H, W, classes) float32  # doctest: +SKIP
    >>> labels = predictor.labels(rgb)  # (H, W) uint8, 0 is background  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Model,
        options: InferOptions = InferOptions(),  # noqa: B008 (frozen)
        *,
        load: Load = load_network,
    ) -> None:
        if options.overlap == "adaptive":
            raise ConfigError("got overlap adaptive for an array; expected a fraction, 0 to 0.9")
        options = options_for(model, options)
        self._device = Device.here(options.device, options.precision)
        self._options = replace(options, precision=self._device.precision)
        self._model, self._runner = model, Runner(model, self._options, load)

    @classmethod
    def load(
        cls,
        checkpoint: Path | str | None = None,
        options: InferOptions = InferOptions(),  # noqa: B008 (frozen)
        *,
        card: ModelCard | Path | str | None = None,
        trust: bool = False,
    ) -> "Predictor":
        """Load a checkpoint, an ensemble's YAML file, or a network from another program.

        Parameters
        ----------
        checkpoint
            The file; None loads the included model of nuclei in H&E.
        options
            Overlap, blending, device and so on.
        card, trust
            See `predict.ensemble.read_model`.

        Raises
        ------
        CheckpointError
            If the file is missing, damaged, not a model, or does not match its card.
        """
        card = Path(card) if isinstance(card, str) else card
        file = shipped_checkpoint() if checkpoint is None else checkpoint
        return cls(read_model([file], card=card, trust=trust), options)

    @classmethod
    def of(
        cls,
        network: nn.Module,
        card: ModelCard,
        options: InferOptions = InferOptions(),  # noqa: B008 (frozen)
    ) -> "Predictor":
        """Predict with your own ``network``; ``card`` describes its classes and input.

        ``options`` are those of `Predictor`.
        """
        return cls(Model.of(network, card), options)

    @property
    def classes(self) -> ClassTable:
        """Classes, in the order of the channels."""
        return self._model.card.classes

    def __call__(
        self, pixels: NDArray[np.uint8], *, mpp: float | None = None
    ) -> NDArray[np.float32]:
        """Predict an array.

        Parameters
        ----------
        pixels
            ``(H, W, 3)`` uint8 RGB.
        mpp
            Micrometres per pixel of the array; None assumes that of the model.

        Returns
        -------
        NDArray[np.float32]
            ``(H, W, classes)`` probabilities, 0 to 1 in steps of 1 / 255 as for slides.

        Raises
        ------
        RegionError
            If the array has another shape or dtype, or no pixels.
        BatchError
            If it cannot be predicted, for example because it is too coarse for the model.
        """
        return self._predicted(pixels, mpp).astype(np.float32) / np.float32(255)

    def labels(self, pixels: NDArray[np.uint8], *, mpp: float | None = None) -> NDArray[np.uint8]:
        """Predict class ids, ``(H, W)`` uint8, or planes, ``(H, W, planes)`` uint8.

        See `postprocess.label_map`; ``pixels`` and ``mpp`` are those of `Predictor.__call__`.
        """
        return label_map(self._predicted(pixels, mpp), self.classes.mode)

    def _predicted(self, pixels: NDArray[np.uint8], mpp: float | None) -> NDArray[np.uint8]:
        card = self._model.card
        if pixels.ndim != 3 or pixels.shape[2] != card.in_channels or pixels.dtype != np.uint8:
            raise RegionError(
                f"got an array {pixels.shape} of {pixels.dtype}; expected (height, width, "
                f"{card.in_channels}) of uint8"
            )
        if 0 in pixels.shape:
            raise RegionError(f"got an array {pixels.shape}; expected at least one pixel")
        slide = ArraySlide(ArrayImage((pixels,), card.mpp if mpp is None else mpp))
        plan = plan_inference([slide], self._model, self._options, device=self._device)
        if plan.memory is None:
            raise BatchError(plan.failures, done=0)
        (plans,) = plan.slides
        task = StripTask(
            slide, plans, Path(), frozenset(range(len(plans[0].strips))), save="probabilities"
        )
        strips: dict[int, NDArray[np.uint8]] = {}
        native = plans[0].native

        def take(strip: PendingStrip) -> None:
            found = strip()
            rows = found.probabilities
            if native is not None:
                rows = found.at_size(native)(range(native.height))
            assert rows is not None
            strips[found.index] = rows

        self._runner.produce([StripJob(task, take)], plan.memory, compiled=False, progress=Silent())
        found = np.concatenate([strips[index] for index in sorted(strips)])
        small, full = Extent.of(found.shape), Extent.of(pixels.shape)
        if small == full:
            return found
        return resized(found, 0, range(full.height), small=small, full=full)
