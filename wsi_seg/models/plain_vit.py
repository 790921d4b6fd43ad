"""Owns DPT on plain vision transformers, for any timm arguments and patch size.

Layers and their names are those of smp's DPT.
"""

from collections.abc import Mapping
from typing import Any

import segmentation_models_pytorch as smp
import timm
from segmentation_models_pytorch.base import SegmentationModel
from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder, DPTSegmentationHead
from segmentation_models_pytorch.encoders.timm_vit import TimmViTEncoder
from torch import nn

# Patch size for which smp's decoder is designed; for others it rounds its scale factors.
_PATCH_PX = 16

# Channels of the decoder at each depth of the encoder; smp's defaults.
_CHANNELS = (256, 512, 1024, 1024)
_FUSED = 256


class VitEncoder(TimmViTEncoder):
    """A timm transformer that accepts all of timm's arguments, including ``depth``."""

    def __init__(
        self, name: str, in_channels: int, arguments: Mapping[str, Any], *, pretrained: bool
    ) -> None:
        nn.Module.__init__(self)
        self.name = name
        model: Any = timm.create_model(
            name, in_chans=in_channels, pretrained=pretrained, **arguments
        )
        if not hasattr(model, "forward_intermediates"):
            raise ValueError(f"{name} has no forward_intermediates")
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
    """A DPT whose decoder treats patches as 16 pixels wide, which the head corrects.

    The encoder therefore sees images at their own resolution, whatever its patch size.
    """

    def __init__(self, encoder: VitEncoder, classes: int) -> None:
        SegmentationModel.__init__(self)
        patch = int(encoder.output_stride)
        supported = patch & (patch - 1) == 0  # a power of two
        self.encoder = encoder
        self.decoder = DPTDecoder(
            encoder_out_channels=encoder.out_channels,
            encoder_output_strides=[patch if supported else _PATCH_PX] * len(_CHANNELS),
            encoder_has_prefix_tokens=encoder.has_prefix_tokens,
            readout="cat" if encoder.has_prefix_tokens else "ignore",
            intermediate_channels=_CHANNELS,
            fusion_channels=_FUSED,
        )
        upsampling = 2.0 if supported else 2 * patch / _PATCH_PX
        self.segmentation_head = DPTSegmentationHead(_FUSED, classes, upsampling=upsampling)
        self.classification_head = None
        self.name = f"dpt-{encoder.name}"
        self.initialize()
