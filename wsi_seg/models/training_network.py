"""Owns the training-only parts of a network: dropout, classification head, deep supervision.

They are not saved, so a checkpoint contains only what inference needs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Self

import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.nn import functional

from wsi_seg.errors import ConfigError
from wsi_seg.models.lora import add_low_rank

Pooling = Literal["avg", "max", "gem"]


@dataclass(frozen=True, slots=True)
class EncoderTraining:
    """Which parts of an encoder are trained.

    Parameters
    ----------
    kind
        Trainable weights: ``full``: all; ``frozen``: none; ``lora``: low-rank adapters; see `lora`.
    rank
        Rank of the adapters.
    keep_norm
        Whether BatchNorm uses the running statistics of the initial weights instead of the batch's.
    """

    kind: Literal["full", "frozen", "lora"] = "full"
    rank: int = 8
    keep_norm: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """Outputs of one forward pass.

    Parameters
    ----------
    logits
        ``(B, K, H, W)``; see `ClassTable.outputs`.
    class_logits
        Logits of the classification head, ``(B, C)``; None without a head.
    auxiliary
        Logits at inner depths of the decoder, upsampled to ``(B, K, H, W)``.
    """

    logits: torch.Tensor
    class_logits: torch.Tensor | None = None
    auxiliary: list[torch.Tensor] = field(default_factory=list)


class GeneralisedMean(nn.Module):
    """Generalised-mean pooling with a trainable power (Radenovic et al., 2018).

    Power 1 is the mean; higher powers approach the maximum. Maps ``(B, C, H, W)`` to
    ``(B, C, 1, 1)``.
    """

    def __init__(self, power: float = 3.0, floor: float = 1e-6) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor(power))
        self._floor = floor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool in float32, because powers overflow in half precision."""
        powers = x.float().clamp(min=self._floor) ** self.power
        return powers.mean((2, 3), keepdim=True) ** (1 / self.power)


def class_head(channels: int, classes: int, pooling: Pooling, dropout: float) -> nn.Module:
    """Build a head that predicts from the deepest features whether each class is in the patch."""
    pools = {"avg": nn.AdaptiveAvgPool2d(1), "max": nn.AdaptiveMaxPool2d(1)}
    pool = pools[pooling] if pooling in pools else GeneralisedMean()
    return nn.Sequential(pool, nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels, classes))


class TrainingNetwork(nn.Module):
    """A network with its training-only parts.

    Parameters
    ----------
    network
        Network built by `build_network`; only this is saved.
    classes
        Number of classes.
    outputs
        Channels of its output; None is one per class.
    head
        Pooling of the classification head; None adds no head.
    dropout
        Probability of dropping each of the decoder's channels before the last layer.
    auxiliary
        Whether inner depths of the decoder have their own outputs (deep supervision).
    patch_px
        Side in pixels of an image that the network accepts, for measuring the inner depths.
    encoder_training
        Which parts of the encoder are trained. Unless all weights are, it stays in eval mode.

    Raises
    ------
    ConfigError
        If the network's decoder has no inner depths to supervise, or its encoder no linear layers
        to adapt.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        classes: int,
        outputs: int | None = None,
        head: Pooling | None = None,
        dropout: float = 0.0,
        auxiliary: bool = False,
        patch_px: int = 64,
        encoder_training: EncoderTraining = EncoderTraining(),
    ) -> None:
        super().__init__()
        self.network = network
        self._encoder_training = encoder_training
        self.dropout = nn.Dropout2d(dropout)
        self.head: nn.Module | None = None
        if head is not None:
            channels = _encoder_channels(network)[-1]
            self.head = class_head(channels, classes, head, dropout)
        self.auxiliary = nn.ModuleList()
        if auxiliary:
            self._add_auxiliary(outputs or classes, patch_px)
        encoder = network.get_submodule("encoder")
        if encoder_training.kind == "frozen":
            encoder.requires_grad_(requires_grad=False)
        if encoder_training.kind == "lora" and not add_low_rank(encoder, encoder_training.rank):
            raise ConfigError(
                "got encoder_training lora for an encoder without linear layers; expected a "
                "transformer; use full or frozen"
            )
        self.train(self.training)

    def forward(self, x: torch.Tensor) -> Outputs:
        """Run the network on normalised images ``(B, in_channels, H, W)``."""
        encoder, decoder = (self.network.get_submodule(n) for n in ("encoder", "decoder"))
        features = encoder(x)
        with self._inner_depths(enabled=len(self.auxiliary) > 0) as inner:
            if isinstance(self.network, smp.DPT):
                features, prefix = features
                decoded = decoder(features, prefix)
            else:
                decoded = decoder(features)
        logits = self.network.get_submodule("segmentation_head")(self.dropout(decoded))
        class_logits = None if self.head is None else self.head(features[-1])
        size = logits.shape[2:]
        auxiliary = [
            functional.interpolate(layer(one), size, mode="bilinear", align_corners=False)
            for layer, one in zip(self.auxiliary, inner, strict=True)
        ]
        return Outputs(logits, class_logits, auxiliary)

    def train(self, mode: bool = True) -> Self:
        """Set the mode, keeping the encoder or its BatchNorm in eval mode where required."""
        super().train(mode)
        if self._encoder_training.kind != "full":
            self.network.get_submodule("encoder").eval()
        if self._encoder_training.keep_norm:
            for module in self.network.get_submodule("encoder").modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def freeze_encoder(self, frozen: bool) -> None:
        """Freeze or unfreeze the encoder.

        A frozen encoder is in eval mode, so BatchNorm keeps its statistics and drop path is off.
        """
        network = self.network
        if frozen:
            network.freeze_encoder()  # type: ignore[operator]
            network.get_submodule("encoder").eval()
        else:
            network.unfreeze_encoder()  # type: ignore[operator]
            self.train(self.training)

    def _add_auxiliary(self, outputs: int, patch_px: int) -> None:
        """Add a 1x1 convolution to each inner depth, whose channels are measured on zeros."""
        if len(self._inner_blocks) == 0:
            raise ConfigError(
                f"{type(self.network).__name__} has no inner depths to supervise; set "
                "model.deep_supervision to 0, or use Unet, Linknet or MAnet"
            )
        in_channels = _encoder_channels(self.network)[0]
        training = self.network.training
        self.network.eval()
        with torch.no_grad(), self._inner_depths(enabled=True) as inner:
            self.network(torch.zeros(1, in_channels, patch_px, patch_px))
        self.network.train(training)
        self.auxiliary = nn.ModuleList([nn.Conv2d(one.shape[1], outputs, 1) for one in inner])

    @property
    def _inner_blocks(self) -> list[nn.Module]:
        blocks = getattr(self.network.get_submodule("decoder"), "blocks", None)
        return list(blocks)[:-1] if isinstance(blocks, nn.ModuleList) else []

    @contextmanager
    def _inner_depths(self, *, enabled: bool) -> Iterator[list[torch.Tensor]]:
        """Collect the outputs of the inner depths with forward hooks, which are then removed."""
        inner: list[torch.Tensor] = []
        hooks = [
            block.register_forward_hook(lambda _block, _given, decoded: inner.append(decoded))
            for block in (self._inner_blocks if enabled else [])
        ]
        try:
            yield inner
        finally:
            for hook in hooks:
                hook.remove()


def _encoder_channels(network: nn.Module) -> list[int]:
    """Return the channels of the image and of the encoder's features, from the finest on."""
    channels: list[int] = network.get_submodule("encoder").out_channels  # type: ignore[assignment]
    return list(channels)
