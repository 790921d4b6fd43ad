import pytest

from wsi_seg.classes import ClassTable
from wsi_seg.models import ModelCard


@pytest.fixture
def card_for():
    """Return a function that builds the card of a network."""

    def make(spec):
        return ModelCard(
            architecture=spec.architecture,
            encoder=spec.encoder,
            in_channels=spec.in_channels,
            classes=ClassTable.named([f"c{index}" for index in range(spec.classes)]),
            mpp=0.5,
            tile_px=64,
            mean=(0.5,) * spec.in_channels,
            std=(0.25,) * spec.in_channels,
            decoder_attention=spec.decoder_attention,
            full_resolution_skip=spec.full_resolution_skip,
        )

    return make
