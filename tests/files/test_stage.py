"""Files that are fetched from object stores."""

import pytest

from wsi_seg.errors import AddressError
from wsi_seg.files import stage
from wsi_seg.files.object_path import ObjectPath
from wsi_seg.files.stage import fetch


@pytest.mark.parametrize("skipped", [0, 1, 2])
def test_a_file_with_a_skipped_part_is_not_taken_for_complete(tmp_path, monkeypatch, skipped):
    remote, file = ObjectPath("s3:/bucket/slide.tif"), tmp_path / "slide.tif"
    monkeypatch.setattr(stage, "_PART_BYTES", 4)
    monkeypatch.setattr(stage, "_PARTS", 1)
    monkeypatch.setattr(ObjectPath, "read_spans", lambda _, spans: [bytes(spans[0][1])])
    fetch({remote: 10}, {remote: file})
    assert file.read_bytes() == bytes(10)
    answers = iter(number != skipped for number in range(3))
    with pytest.raises(AddressError, match=r"got [68] of 10 bytes"):
        fetch({remote: 10}, {remote: file}, is_wanted=lambda: next(answers))
