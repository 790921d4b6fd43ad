import struct
from pathlib import Path

import pytest

from wsi_seg.errors import RegionError, SlideError, UnsupportedSlideError
from wsi_seg.slides.failures import translate_errors

PATH = Path("a.tif")


class OfTheLibrary(Exception):
    pass


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        struct.error("bad"),
        RuntimeError("two\nlines"),
        MemoryError(),
        OSError(5, "io"),
        RegionError("empty"),
        OfTheLibrary("odd"),
    ],
)
def test_every_failure_is_one_sentence_that_names_the_file(error):
    with (
        pytest.raises(SlideError, match=r"^a\.tif: ") as caught,
        translate_errors(PATH, "is damaged: ", "a TIFF", also=(OfTheLibrary,)),
    ):
        raise error
    assert "\n" not in str(caught.value)


def test_slide_errors_and_interruptions_pass():
    own = UnsupportedSlideError("a.tif: CMYK")
    with pytest.raises(UnsupportedSlideError) as caught, translate_errors(PATH, "", ""):
        raise own
    assert caught.value is own
    with pytest.raises(KeyboardInterrupt), translate_errors(PATH, "", ""):
        raise KeyboardInterrupt
