"""Owns what a network has only while it learns: dropout, a class head, outputs at several depths.

None of it is saved with the network, so a checkpoint stays what inference needs and no more.
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
class EncoderLearning:
    """What of an encoder learns.

    Parameters
    ----------
    kind
        Weights: ``full``: all; ``frozen``: none; ``lora``: products of low rank, see `lora`.
    rank
        Of these products.
    keep_norm
        Whether BatchNorm goes by the statistics it came with, not by the batch's.
    """

    kind: Literal["full", "frozen", "lora"] = "full"
    rank: int = 8
    keep_norm: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """What one forward pass gives.

    Parameters
    ----------
    logits
        ``(B, C, H, W)``.
    class_logits
        ``(B, C)`` logits of the class head; None without one.
    auxiliary
        Logits of inner depths of the decoder, enlarged to ``(B, C, H, W)``.
    """

    logits: torch.Tensor
    class_logits: torch.Tensor | None = None
    auxiliary: list[torch.Tensor] = field(default_factory=list)


class GeneralisedMean(nn.Module):
    """Mean of powers over y and x, with a power that is learned (Radenovic et al., 2018).

    Power 1 is the mean, a high one nears the maximum. ``(B, C, H, W)`` to ``(B, C, 1, 1)``.
    """

    def __init__(self, power: float = 3.0, floor: float = 1e-6) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor(power))
        self._floor = floor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool; in float32, because powers leave the range of half precision."""
        powers = x.float().clamp(min=self._floor) ** self.power
        return powers.mean((2, 3), keepdim=True) ** (1 / self.power)


def class_head(channels: int, classes: int, pooling: Pooling, dropout: float) -> nn.Module:
    """Head that predicts from the deepest features whether each class is in the patch."""
    pools = {"avg": nn.AdaptiveAvgPool2d(1), "max": nn.AdaptiveMaxPool2d(1)}
    pool = pools[pooling] if pooling in pools else GeneralisedMean()
    return nn.Sequential(pool, nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels, classes))


class TrainingNetwork(nn.Module):
    """A network and what helps it learn.

    Parameters
    ----------
    network
        Built by `build_network`; this is what is saved.
    classes
        Number of classes.
    outputs
        Channels of its output; None has one for each class.
    head
        Pooling of the class head; None has none.
    dropout
        Share of the decoder's channels that is left out of each patch before the last layer.
    auxiliary
        Whether inner depths of the decoder get outputs of their own (deep supervision).
    patch_px
        Side of an image that the network takes; inner depths are measured with it.
    encoder_learning
        What of the encoder learns. Where not all weights do, it stays in eval mode.

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
        encoder_learning: EncoderLearning = EncoderLearning(),
    ) -> None:
        super().__init__()
        self.network = network
        self._learning = encoder_learning
        self.dropout = nn.Dropout2d(dropout)
        self.head: nn.Module | None = None
        if head is not None:
            channels = _int_list(network.get_submodule("encoder"), "out_channels")[-1]
            self.head = class_head(channels, classes, head, dropout)
        self.auxiliary = nn.ModuleList()
        if auxiliary:
            self._add_auxiliary(outputs or classes, patch_px)
        encoder = network.get_submodule("encoder")
        if encoder_learning.kind == "frozen":
            encoder.requires_grad_(requires_grad=False)
        if encoder_learning.kind == "lora" and not add_low_rank(encoder, encoder_learning.rank):
            raise ConfigError(
                "got encoder_training lora for an encoder without linear layers; expected a "
                "transformer; take full or frozen"
            )
        self.train(self.training)

    def forward(self, x: torch.Tensor) -> Outputs:
        """Predict ``(B, in_channels, H, W)`` normalised images at every output."""
        encoder, decoder = (self.network.get_submodule(n) for n in ("encoder", "decoder"))
        features = encoder(x)
        with self._inner_depths(wanted=len(self.auxiliary) > 0) as inner:
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
        """Learn, or predict; BatchNorm of the encoder may rest in either."""
        super().train(mode)
        if self._learning.kind != "full":
            self.network.get_submodule("encoder").eval()
        if self._learning.keep_norm:
            for module in self.network.get_submodule("encoder").modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def freeze_encoder(self, frozen: bool) -> None:
        """Freeze or unfreeze the encoder.

        A frozen encoder is in eval mode, so BatchNorm keeps its statistics and drop path rests.
        """
        network = self.network
        if frozen:
            network.freeze_encoder()  # type: ignore[operator]
            network.get_submodule("encoder").eval()
        else:
            network.unfreeze_encoder()  # type: ignore[operator]
            self.train(self.training)

    def _add_auxiliary(self, outputs: int, patch_px: int) -> None:
        """Give each inner depth a 1x1 layer; its channels are measured on an empty picture."""
        if len(self._inner_blocks) == 0:
            raise ConfigError(
                f"{type(self.network).__name__} has no inner depths to supervise; set "
                "model.deep_supervision to 0, or take Unet, Linknet or MAnet"
            )
        in_channels = _int_list(self.network.get_submodule("encoder"), "out_channels")[0]
        learning = self.network.training
        self.network.eval()
        with torch.no_grad(), self._inner_depths(wanted=True) as inner:
            self.network(torch.zeros(1, in_channels, patch_px, patch_px))
        self.network.train(learning)
        self.auxiliary = nn.ModuleList([nn.Conv2d(one.shape[1], outputs, 1) for one in inner])

    @property
    def _inner_blocks(self) -> list[nn.Module]:
        blocks = getattr(self.network.get_submodule("decoder"), "blocks", None)
        return list(blocks)[:-1] if isinstance(blocks, nn.ModuleList) else []

    @contextmanager
    def _inner_depths(self, *, wanted: bool) -> Iterator[list[torch.Tensor]]:
        """Collect what the inner depths give; nothing is left on the network afterwards."""
        inner: list[torch.Tensor] = []
        hooks = [
            block.register_forward_hook(lambda _block, _given, decoded: inner.append(decoded))
            for block in (self._inner_blocks if wanted else [])
        ]
        try:
            yield inner
        finally:
            for hook in hooks:
                hook.remove()


def _int_list(module: nn.Module, name: str) -> list[int]:
    return [int(value) for value in getattr(module, name)]
