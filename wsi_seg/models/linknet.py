"""Owns the Linknet whose skip connections are joined as channels instead of added."""

import segmentation_models_pytorch as smp
import torch
from torch import nn


class _ConcatBlock(nn.Module):
    """Decoder block that appends the skip to its own channels and mixes them by a 1x1 layer."""

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


def join_skips(network: smp.Linknet) -> None:
    """Make a Linknet join its skips as channels.

    Each depth then holds its channels and the skip's at once, so it takes more memory and weights
    than adding.
    """
    # From the deepest on, without the deepest itself, which is no skip.
    skips = [int(count) for count in network.encoder.out_channels[-2:0:-1]]
    blocks = network.decoder.blocks
    for index, block in enumerate(blocks):
        skip = skips[index] if index < len(skips) else 0
        own = block.block[-1][0].out_channels
        blocks[index] = _ConcatBlock(block.block, own, skip)
