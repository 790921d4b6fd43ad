"""Owns the skip connection at full resolution, which smp's decoders lack."""

import torch
from torch import nn


class FullResolutionDecoder(nn.Module):
    """Decoder whose output is merged with two convolutions of the image at full resolution.

    The finest skip connection of smp's decoders is at half resolution, which blurs the borders of
    small objects.

    Parameters
    ----------
    decoder
        Decoder of the encoder's features, of which the first is the image itself.
    image, skip, decoded
        Channels of the image, of the skip connection and of the decoder's output.
    """

    def __init__(self, decoder: nn.Module, *, image: int, skip: int, decoded: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.skip = nn.Sequential(*_layer(image, skip), *_layer(skip, skip))
        self.mix = nn.Sequential(*_layer(skip + decoded, decoded))

    @property
    def blocks(self) -> nn.ModuleList | None:
        """Blocks of the decoder, if it has any."""
        blocks = getattr(self.decoder, "blocks", None)
        return blocks if isinstance(blocks, nn.ModuleList) else None

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Decode the features to ``(B, decoded, H, W)``."""
        both = torch.cat([self.decoder(features), self.skip(features[0])], dim=1)
        mixed: torch.Tensor = self.mix(both)
        return mixed


def _layer(before: int, after: int) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]


def add_full_resolution_skip(network: nn.Module, *, image: int, skip: int) -> None:
    """Add a skip connection at full resolution to a network, in place.

    Parameters
    ----------
    network
        Network of smp whose decoder's output has the size of the image.
    image, skip
        See `FullResolutionDecoder`.
    """
    head = network.get_submodule("segmentation_head")
    last = next(layer for layer in head.modules() if isinstance(layer, nn.Conv2d))
    decoder = network.get_submodule("decoder")
    network.decoder = FullResolutionDecoder(
        decoder, image=image, skip=skip, decoded=last.in_channels
    )
