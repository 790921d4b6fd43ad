"""Owns the Linknet variant that concatenates its skip connections instead of adding them."""

import segmentation_models_pytorch as smp
import torch
from torch import nn


class _ConcatBlock(nn.Module):
    """Decoder block that concatenates the skip and merges channels by a 1x1 convolution."""

    def __init__(self, block: nn.Module, channels: int, skip_channels: int) -> None:
        super().__init__()
        self.block = block
        self.mix = nn.Conv2d(channels + skip_channels, channels, 1) if skip_channels else None

    def forward(self, x: torch.Tensor, skip: torch.Tensor | None = None) -> torch.Tensor:
        x = self.block(x)
        if self.mix is None or skip is None:
            return x
        mixed: torch.Tensor = self.mix(torch.cat([x, skip], dim=1))
        return mixed


def concatenate_skips(network: smp.Linknet) -> None:
    """Make a Linknet concatenate its skip connections, in place, for more memory and weights."""
    # From the deepest skip up; the deepest features are the input of the decoder.
    skips = [int(count) for count in network.encoder.out_channels[-2:0:-1]]
    blocks = network.decoder.blocks
    for index, block in enumerate(blocks):
        skip = skips[index] if index < len(skips) else 0
        own = block.block[-1][0].out_channels
        blocks[index] = _ConcatBlock(block.block, own, skip)
