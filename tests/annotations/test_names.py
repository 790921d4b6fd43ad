"""One rule says which slide a name means, wherever names are compared."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.annotations.names import SlideNames
from wsi_seg.errors import AnnotationError

FILE = Path("x.json")
NFC, NFD = (unicodedata.normalize(form, "Prüfung") for form in ("NFC", "NFD"))


def found(name, *slides):
    fit = SlideNames(slides).find(name)
    return None if fit is None else fit.slide


@pytest.mark.parametrize(
    "name",
    [
        "slide", "slide.tif", "Slide.TIF", "SLIDE.SVS", "slide.ome.tif", "slide.OME.TIFF",
        "a/b/slide.png", "images\\train\\slide.tif", "C:\\data\\slide.tif", "./slide.ndpi",
        "../slide.jpg", " slide.tif ", "https://example.org/a/slide.tif?x=1#y",
        "file:///a/slide.tif", "s3://b/slide.svs", "slide.nii.gz", "/abs/slide.ome.zarr",
    ],
)  # fmt: skip
def test_spellings_of_one_slide(name):
    assert found(name, "slide", "slide2") == "slide"


@pytest.mark.parametrize(
    "name", ["slide.7", "slide.1.tif", "slide_mask.png", "slid", "slides", "", "/", ".tif", "2"]
)
def test_names_of_other_images_fit_none(name):
    assert found(name, "slide", "slide2") is None


def test_dots_belong_to_names():
    assert found("1.2.840.113619.2.5", "1.2.840.113619.2.5", "1.2.840.113619.2") == (
        "1.2.840.113619.2.5"
    )
    assert found("1.2.840.113619.2.5.dcm", "1.2.840.113619.2.5") == "1.2.840.113619.2.5"
    assert found("a.tif", "a.tif", "a") == "a.tif"
    assert found("back\\slash.tif", "back\\slash", "slash") == "back\\slash"
    assert found("x\\slash.tif", "back\\slash", "slash") == "slash"


def test_the_exact_name_goes_first_then_accents_then_case():
    assert found("a", "A", "a") == "a"
    assert found("A.TIF", "A", "a") == "A"
    assert found(NFC, NFD) == NFD
    assert found(NFD + ".TIF", NFC.upper()) == NFC.upper()
    assert found(NFC, NFD, NFC) == NFC
    with pytest.raises(AnnotationError, match=r"'ab' matches several slides: AB, Ab"):
        found("ab", "AB", "Ab")


def test_two_images_of_one_slide_are_refused_and_named():
    names = SlideNames(["slide", "other"])
    with pytest.raises(AnnotationError, match=r"x\.json: got 'a/slide.tif' and 'b/slide.tif'"):
        names.assign(FILE, ["a/slide.tif", "b/slide.tif"])
    with pytest.raises(AnnotationError, match=r"'SLIDE' and 'Slide'"):
        names.assign(FILE, ["SLIDE", "Slide"])
    for order in (["SLIDE", "slide"], ["slide", "SLIDE"]):
        assert names.assign(FILE, order) == ({"slide": "slide"}, ["SLIDE"])
    assert names.assign(FILE, ["slide.tif", "x", "y"]) == ({"slide.tif": "slide"}, ["x", "y"])


@given(st.lists(st.text(min_size=1).filter(lambda name: "/" not in name), unique=True))
def test_every_slide_is_found_by_its_own_name(slides):
    names = SlideNames(slides)
    assert names.assign(FILE, slides) == ({slide: slide for slide in slides}, [])


def test_folders_tell_slides_of_one_name_apart():
    names = SlideNames(["a_s", "b_s", "x_c_s", "s"])
    assert names.assign(FILE, ["a/s.tif", "data\\b\\S.TIF", "x/c/s.svs", "s.tif"])[0] == {
        "a/s.tif": "a_s", "data\\b\\S.TIF": "b_s", "x/c/s.svs": "x_c_s", "s.tif": "s",
    }  # fmt: skip
    assert found("/".join(["d"] * 10_000) + "/s.tif", "d_s", "s") == "d_s"
