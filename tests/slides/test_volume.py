"""Volumes: each z slice is a slide of its own."""

import gzip
import shutil
from functools import lru_cache

import numpy as np
import pytest
import SimpleITK

import wsi_seg.slides.volume as volume_module
from wsi_seg.errors import SlideError, UnsupportedSlideError
from wsi_seg.geometry import Extent, Region
from wsi_seg.slides import (
    Window,
    find_slides,
    open_slide,
    slide_name,
    source_bytes,
    source_digest,
    source_name,
)
from wsi_seg.testing.conformance import check_slide

SHAPE = (5, 47, 31)


def values(dtype=np.int16):
    span = 4000 if np.dtype(dtype).itemsize > 1 else 255
    low = -2000 if np.dtype(dtype).kind != "u" else 0
    return (low + np.arange(np.prod(SHAPE)) * 37 % span).astype(dtype).reshape(SHAPE)


def write(path, array, spacing=(0.7, 0.7, 2.5)):
    image = SimpleITK.GetImageFromArray(array, isVector=False)
    image.SetSpacing(spacing[: array.ndim])
    SimpleITK.WriteImage(image, str(path))


def grey(plane, low, high):
    shown = np.rint(((plane - low) / (high - low)).clip(0, 1) * 255).astype(np.uint8)
    return np.repeat(shown[:, :, None], 3, axis=2)


@pytest.mark.parametrize("name", ["ct.mhd", "ct.mha", "ct.nii", "ct.nii.gz", "ct.nrrd"])
def test_every_slice_is_a_slide(tmp_path, name):
    write(tmp_path / name, values())
    slides = find_slides([tmp_path])
    assert [slide_name(path) for path in slides] == [f"ct_z000{z}" for z in range(5)]
    assert find_slides([tmp_path / name]) == slides
    for z, path in enumerate(slides):
        check_slide(path, [grey(values()[z].astype(float), -1200, 600)], mpp=700)
    assert len({source_digest(path) for path in slides}) == 5
    assert source_name(slides[2]) == f"{name}/z0002"
    assert 0 < source_bytes(slides[0]) <= (tmp_path / name).stat().st_size + values().nbytes


def test_a_compressed_volume_is_decompressed_once(tmp_path, monkeypatch):
    path = tmp_path / "ct.nii.gz"
    write(path, values())
    whole = Region(level=0, y=0, x=0, height=SHAPE[1], width=SHAPE[2])
    decompressed = []
    real = volume_module._decompressed.__wrapped__

    @lru_cache(maxsize=1)
    def counted(path, changed):
        decompressed.append(path)
        return real(path, changed)

    monkeypatch.setattr(volume_module, "_decompressed", counted)
    kept = [open_slide(member).read(whole) for member in find_slides([path])]
    assert decompressed == [path]
    monkeypatch.setattr(volume_module, "_MAX_CACHED_BYTES", 0)
    single = [open_slide(member).read(whole) for member in find_slides([path])]
    assert np.array_equal(kept, single)
    assert decompressed == [path]


@pytest.mark.parametrize(("dtype", "high"), [(np.uint8, 255), (np.uint16, 65535)])
def test_unsigned_values_use_their_full_range(tmp_path, dtype, high):
    write(tmp_path / "a.mha", values(dtype))
    check_slide(tmp_path / "a.mha" / "z0003", [grey(values(dtype)[3].astype(float), 0, high)])


def test_a_window_can_be_asked_for(tmp_path):
    write(tmp_path / "a.mha", values(np.float32))
    slide = open_slide(tmp_path / "a.mha" / "z0001", window=Window(-100, 300))
    found = slide.read(Region(level=0, y=0, x=0, height=47, width=31))
    assert np.array_equal(found, grey(values(float)[1], -100, 300))


def test_an_assumed_window_is_said(tmp_path, caplog):
    write(tmp_path / "a.mha", values())
    find_slides([tmp_path / "a.mha"])
    assert "a.mha: states no display range; values from -1200 to 600 are shown" in caplog.text
    caplog.clear()
    write(tmp_path / "b.mha", values(np.uint16))
    find_slides([tmp_path / "b.mha"])
    assert not caplog.text


def test_the_display_range_of_nifti_is_used(tmp_path, caplog):
    write(tmp_path / "a.nii", values())
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[124:132] = np.array([500, -500], "<f4").tobytes()  # cal_max, cal_min
    (tmp_path / "a.nii").write_bytes(data)
    check_slide(tmp_path / "a.nii" / "z0000", [grey(values(float)[0], -500, 500)])
    find_slides([tmp_path / "a.nii"])
    assert "display range" not in caplog.text


def test_what_is_no_volume_is_one_sentence(tmp_path):
    write(tmp_path / "a.mha", values())
    with pytest.raises(SlideError, match=r"a volume of 5 slices; name one of them"):
        open_slide(tmp_path / "a.mha")
    with pytest.raises(SlideError, match="got slice 5; expected 0 to 4"):
        open_slide(tmp_path / "a.mha" / "z0005")
    (tmp_path / "b.nii").write_bytes(b"no volume")
    with pytest.raises(SlideError, match=r"b\.nii: cannot be read as a volume"):
        open_slide(tmp_path / "b.nii")
    assert tmp_path / "b.nii" in find_slides([tmp_path])
    write(tmp_path / "c.nii", np.zeros((2, *SHAPE), np.int16), spacing=(1.0, 1.0, 1.0, 1.0))
    with pytest.raises(UnsupportedSlideError, match="expected x, y and z only"):
        open_slide(tmp_path / "c.nii" / "z0000")


def test_a_volume_cut_short_is_refused(tmp_path):
    write(tmp_path / "a.nii", values())
    data = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii").write_bytes(data[: len(data) // 2])
    whole = Region(level=0, y=0, x=0, height=47, width=31)
    with pytest.raises(SlideError, match=r"a\.nii"):
        open_slide(tmp_path / "a.nii" / "z0004").read(whole)


def test_a_real_volume_equals_simpleitk(shared_data, tmp_path):
    source = shared_data / "cxr-ct-misc" / "ct" / "example_ct_sm.nii.gz"
    with gzip.open(source) as packed, (tmp_path / "ct.nii").open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    # As viewers show it: to the left, to the back, to the head.
    image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(source)), "LPS")
    array = SimpleITK.GetArrayFromImage(image)
    for folder in (source, tmp_path / "ct.nii"):
        slides = find_slides([folder])
        assert len(slides) == len(array)
        middle = slides[len(slides) // 2]
        expected = grey(array[len(slides) // 2].astype(float), -1200, 600)
        slide = open_slide(middle)
        assert slide.pyramid.extent == Extent.of(array.shape[1:])
        assert slide.pyramid.mpp == pytest.approx(sum(image.GetSpacing()[:2]) * 500)
        check_slide(middle, [expected])
