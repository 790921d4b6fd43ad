"""What a folder search takes, and what it reports as skipped."""

import logging
from pathlib import Path

import numpy as np
import pytest

from tests.makers.dicoms import write_dicom_image, write_dicom_level
from tests.makers.omezarrs import write_ome_zarr
from wsi_seg.errors import SlideError
from wsi_seg.slides import find_slides, open_slide, search_slides, slide_name
from wsi_seg.slides.sources import source_bytes, source_digest
from wsi_seg.testing.conformance import check_slide

PIXELS = np.arange(70 * 90 * 3, dtype=np.uint8).reshape(70, 90, 3)
FACING = [1, 0, 0, 0, 1, 0]


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def search(folder):
    """Names taken, and names skipped with their reasons."""
    found = search_slides([folder])
    skipped = {str(item.path.relative_to(folder)): item.reason for item in found.skipped}
    return [str(path.relative_to(folder)) for path in found.slides], skipped


def test_folders_are_searched_by_extension(tmp_path):
    touch(tmp_path, "b.tif", "a.svs", ".hidden.tif", "notes.txt", "deep/er/c.NDPI", ".git/d.png")
    assert search(tmp_path) == (["a.svs", "b.tif", "deep/er/c.NDPI"], {})
    (tmp_path / "empty").mkdir()
    with pytest.raises(SlideError, match=r"holds no slide; expected files ending in \.bif"):
        find_slides([tmp_path / "empty"])


def test_pictures_that_name_themselves_are_skipped(tmp_path):
    touch(
        tmp_path, "1.jpg", "1-mask.png", "2.jpg", "2_thumb.jpg", "label.png", "tumor_mask.tif",
        "macro.svs", "masks/1.png", "silver_labels/1.png", "demask.png",
    )  # fmt: skip
    taken, skipped = search(tmp_path)
    assert taken == ["1.jpg", "2.jpg", "demask.png"]
    assert skipped["1-mask.png"] == "its name says mask"
    assert set(skipped) == {
        "1-mask.png", "2_thumb.jpg", "label.png", "tumor_mask.tif", "macro.svs", "masks",
        "silver_labels",
    }  # fmt: skip


def test_pictures_next_to_slides_are_skipped(tmp_path):
    touch(tmp_path, "scans/a.mrxs", "scans/a.png", "scans/note.jpg", "tiff/a.tif", "tiff/a.png")
    touch(tmp_path, "tiff/b.png")
    taken, skipped = search(tmp_path)
    assert taken == ["scans/a.mrxs", "tiff/a.tif", "tiff/b.png"]
    assert skipped == {
        "scans/a.png": "a picture next to a scanner's slides",
        "scans/note.jpg": "a picture next to a scanner's slides",
        "tiff/a.png": "a picture next to a TIFF of the same name",
    }


def test_what_is_skipped_is_logged_and_can_be_named(tmp_path, caplog):
    touch(tmp_path, "a.svs", "a_thumb.png")
    with caplog.at_level(logging.WARNING):
        assert find_slides([tmp_path]) == [tmp_path / "a.svs"]
    assert "skipped 1 next to the slides, such as" in caplog.text
    assert find_slides([tmp_path / "a_thumb.png"]) == [tmp_path / "a_thumb.png"]
    (tmp_path / "a.svs").unlink()
    with pytest.raises(SlideError, match=r"skipped 1, such as .*a_thumb\.png"):
        find_slides([tmp_path])


def test_links_to_folders_and_what_cannot_be_read(tmp_path, monkeypatch):
    touch(tmp_path, "a/b.tif", "closed/c.tif")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "link.tif").symlink_to(tmp_path / "a" / "b.tif")
    listed = Path.iterdir

    def iterdir(folder):
        if folder.name == "closed":
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert search(tmp_path) == (
        ["a/b.tif", "link.tif"],
        {"a/loop": "a link to a folder", "closed": "cannot be read: Permission denied"},
    )


def write_stack(folder, *, series=1):
    """Five slices whose files are named against their order in space."""
    folder.mkdir(exist_ok=True)
    for z in range(5):
        place = {"ImagePositionPatient": [0, 0, 2.5 * z], "ImageOrientationPatient": FACING}
        write_dicom_image(
            folder / f"s{series}-{9 - z}.dcm", PIXELS[..., 0] + np.uint8(z), attributes=place,
            number=z, series=series,
        )  # fmt: skip


def test_a_dicom_series_is_listed_by_position(tmp_path):
    write_stack(tmp_path / "ct.1")
    slides = find_slides([tmp_path])
    assert [slide_name(path) for path in slides] == [f"ct.1_z000{z}" for z in range(5)]
    for z, path in enumerate(slides):
        check_slide(path, [np.repeat(PIXELS[..., :1] + np.uint8(z), 3, axis=2)])
    assert len({source_digest(path) for path in slides}) == 5
    assert source_bytes(slides[0]) == (tmp_path / "ct.1" / "s1-9.dcm").stat().st_size
    with pytest.raises(SlideError, match="got slice 5; expected one of 5"):
        open_slide(tmp_path / "ct.1" / "z0005")
    with pytest.raises(SlideError, match="no DICOM slides"):
        open_slide(tmp_path / "ct.1")
    write_stack(tmp_path / "ct.1", series=2)
    assert len(find_slides([tmp_path])) == 10
    assert all(path.suffix == ".dcm" for path in find_slides([tmp_path]))


def test_a_dicom_slide_is_its_folder(tmp_path):
    (tmp_path / "one").mkdir()
    write_dicom_level(tmp_path / "one" / "0", PIXELS, number=0)
    write_dicom_level(tmp_path / "one" / "1.dcm", PIXELS[::2, ::2], number=1)
    write_dicom_level(tmp_path / "one" / "2.dcm", PIXELS, number=2, flavour="LABEL")
    (tmp_path / "one" / "README").write_text("no DICOM")
    taken, skipped = search(tmp_path)
    assert taken == ["one"]
    assert skipped == {"one/2.dcm": "label, overview or thumbnail of a DICOM slide"}
    check_slide(tmp_path / "one", [PIXELS, PIXELS[::2, ::2]], mpp=0.5)
    write_dicom_level(tmp_path / "one" / "3.dcm", PIXELS[::2], number=3, series=2)
    assert search(tmp_path)[0] == ["one/0", "one/3.dcm"]
    (tmp_path / "one" / "4.dcm").write_bytes(b"damaged")
    assert "one/4.dcm" in search(tmp_path)[0]


def test_zarr_groups_are_one_slide_or_skipped(tmp_path):
    write_ome_zarr(tmp_path / "a.ome.zarr", [PIXELS])
    touch(tmp_path, "b.tif", "store.zarr/zarr.json", "store.zarr/a/zarr.json")
    assert search(tmp_path) == (
        ["a.ome.zarr", "b.tif"], {"store.zarr": "a Zarr group that is not an image"}
    )  # fmt: skip
    assert source_bytes(tmp_path / "a.ome.zarr") > 0
    before = source_digest(tmp_path / "a.ome.zarr")
    write_ome_zarr(tmp_path / "a.ome.zarr", [PIXELS[:, ::-1]])
    assert source_digest(tmp_path / "a.ome.zarr") != before
    with pytest.raises(SlideError, match="holds no slide"):
        find_slides([tmp_path / "store.zarr"])


def test_real_folders_give_what_a_reader_would_take(shared_data):
    def names(folder):
        return {path.name for path in find_slides([shared_data / folder])}

    assert names("cxr-ct-misc/cxr") == {"1.jpg", "2.jpg", "3.jpg"}
    assert "thumbnail.jpg" not in names("slide-large-larynx")
    assert not any("masks" in path.parts for path in find_slides([shared_data / "stas-lung"]))


def test_a_single_dicom_file_has_its_own_name_and_a_folder_of_levels_that_of_the_folder(tmp_path):
    level = np.full((40, 60, 3), 200, np.uint8)
    (tmp_path / "slides").mkdir()
    write_dicom_level(tmp_path / "slides" / "biopsy.dcm", level, number=1)
    assert find_slides([tmp_path / "slides"]) == [tmp_path / "slides" / "biopsy.dcm"]
    (tmp_path / "levels").mkdir()
    write_dicom_level(tmp_path / "levels" / "1.dcm", level, number=1)
    write_dicom_level(tmp_path / "levels" / "2.dcm", level[::2, ::2].copy(), number=2)
    assert find_slides([tmp_path / "levels"]) == [tmp_path / "levels"]
