from collections.abc import Buffer, Callable

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile.made_tiffs import jpeg2k_claiming, jpeg_claiming
from wsi_seg.codestreams.headers import ImageKind, declared_extent, require_size
from wsi_seg.geometry import Extent

ENCODERS: dict[str, Callable[..., Buffer]] = {
    "jpeg": imagecodecs.jpeg8_encode,
    "jpeg2k": imagecodecs.jpeg2k_encode,
    "webp": imagecodecs.webp_encode,
    "jpegxl": imagecodecs.jpegxl_encode,
}
VARIANTS = [
    *((kind, encode, {}) for kind, encode in ENCODERS.items()),
    ("jpeg2k", imagecodecs.jpeg2k_encode, {"codecformat": "j2k"}),
    ("jpeg2k", imagecodecs.jpeg2k_encode, {"codecformat": "jp2"}),
    ("webp", imagecodecs.webp_encode, {"lossless": True}),
    ("jpegxl", imagecodecs.jpegxl_encode, {"lossless": True, "usecontainer": True}),
    ("jpeg", imagecodecs.jpegls_encode, {}),
]


@pytest.mark.parametrize(("kind", "encode", "options"), VARIANTS)
@given(height=st.integers(1, 600), width=st.integers(1, 600))
def test_streams_claim_what_they_decode_to(kind, encode, options, height, width):
    data = encode(np.zeros((height, width, 3), np.uint8), **options)
    assert declared_extent(bytes(data), kind) == Extent(height=height, width=width)


@pytest.mark.parametrize("kind", ENCODERS)
@given(data=st.binary(max_size=80), head=st.integers(0, 40))
def test_any_bytes_are_survived(kind, data, head):
    whole = bytes(ENCODERS[kind](np.zeros((9, 9, 3), np.uint8)))
    declared_extent(data, kind)
    declared_extent(whole[:head] + data, kind)


def test_a_claim_of_much_more_than_the_tile_is_refused():
    tile = Extent(height=256, width=256)
    require_size(jpeg_claiming(512, 512), "jpeg", tile)
    declarations: list[tuple[bytes, ImageKind]] = [
        (jpeg_claiming(60000, 60000), "jpeg"),
        (jpeg2k_claiming(9999, 9999), "jpeg2k"),
    ]
    for data, kind in declarations:
        with pytest.raises(ValueError, match="declares"):
            require_size(data, kind, tile)
