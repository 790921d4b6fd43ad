"""Owns DPT on plain vision transformers: smp's, for any arguments of timm and patches of any size.

Its layers and their names are those of smp's DPT.
"""

from collections.abc import Mapping
from typing import Any

import segmentation_models_pytorch as smp
import timm
from segmentation_models_pytorch.base import SegmentationModel
from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder, DPTSegmentationHead
from segmentation_models_pytorch.encoders.timm_vit import TimmViTEncoder
from torch import nn

# Side of the patches that smp's decoder suits; of others it rounds its factors.
_PATCH_PX = 16

# Depths of the encoder that the decoder takes, and its channels at each; smp's defaults.
_CHANNELS = (256, 512, 1024, 1024)
_FUSED = 256


class VitEncoder(TimmViTEncoder):
    """A transformer of timm whose arguments are timm's own, ``depth`` among them."""

    def __init__(
        self, name: str, in_channels: int, arguments: Mapping[str, Any], *, pretrained: bool
    ) -> None:
        nn.Module.__init__(self)
        self.name = name
        model: Any = timm.create_model(
            name, in_chans=in_channels, pretrained=pretrained, **arguments
        )
        if not hasattr(model, "forward_intermediates"):
            raise ValueError(f"{name} gives no features of inner blocks")
        self.model = model
        info = model.feature_info
        count = len(_CHANNELS)
        if len(info) < count:
            raise ValueError(f"got {len(info)} blocks; expected at least {count}")
        self._output_indices = [len(info) * (n + 1) // count - 1 for n in range(count)]
        self._num_prefix_tokens = getattr(model, "num_prefix_tokens", 0)
        self.has_prefix_tokens = self._num_prefix_tokens > 0
        self.output_strides = [info[index]["reduction"] for index in self._output_indices]
        self.output_stride = self.output_strides[-1]
        self.out_channels = [info[index]["num_chs"] for index in self._output_indices]


class PlainDPT(smp.DPT):
    """A DPT whose decoder works as if patches had 16 pixels, and whose head undoes that.

    So the encoder sees images at their own resolution, whatever its patches are.
    """

    def __init__(self, encoder: VitEncoder, classes: int) -> None:
        SegmentationModel.__init__(self)
        patch = int(encoder.output_stride)
        suits = patch & (patch - 1) == 0  # a power of two
        self.encoder = encoder
        self.decoder = DPTDecoder(
            encoder_out_channels=encoder.out_channels,
            encoder_output_strides=[patch if suits else _PATCH_PX] * len(_CHANNELS),
            encoder_has_prefix_tokens=encoder.has_prefix_tokens,
            readout="cat" if encoder.has_prefix_tokens else "ignore",
            intermediate_channels=_CHANNELS,
            fusion_channels=_FUSED,
        )
        upsampling = 2.0 if suits else 2 * patch / _PATCH_PX
        self.segmentation_head = DPTSegmentationHead(_FUSED, classes, upsampling=upsampling)
        self.classification_head = None
        self.name = f"dpt-{encoder.name}"
        self.initialize()
