"""The list of labels of a slide."""

import os

from wsi_seg.files.half_written import partial_mark, partial_path
from wsi_seg.store.group import label_list, list_label, unlist_label


def test_a_half_written_list_of_a_killed_process_is_removed(tmp_path):
    own = partial_path(tmp_path / "zarr.json").name
    mark = own.split(".")[-2]
    killed = tmp_path / own.replace(mark, partial_mark("elsewhere", os.getpid()))
    killed.write_text("{")
    list_label(tmp_path, "annotation")
    assert label_list(tmp_path) == ["annotation"]
    assert not killed.exists()
    killed.write_text("{")
    unlist_label(tmp_path, "annotation")
    assert label_list(tmp_path) == []
    assert not killed.exists()
