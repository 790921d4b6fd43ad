"""The journal: several units at once, a cut line costs one unit, its order decides no digest."""

import pytest

from wsi_seg.errors import StoreError
from wsi_seg.store.digests import store_digest, write_digests
from wsi_seg.store.journal import Journal, read_settings


def test_units_recorded_together_are_read_one_by_one(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl", {"a": 1})
    journal.record_all({"0": [], "1": [[3, 4, "damaged"]]})
    journal.record("2")
    assert Journal(tmp_path / "journal.jsonl", {"a": 1}).done == {
        "0": [],
        "1": [[3, 4, "damaged"]],
        "2": None,
    }


def test_a_kill_amid_several_units_loses_the_cut_one_alone(tmp_path):
    path = tmp_path / "journal.jsonl"
    Journal(path, {}).record_all({"0": 0, "1": 1})
    path.write_bytes(path.read_bytes()[:-4])
    again = Journal(path, {})
    assert again.done == {"0": 0}
    again.record_all({"1": 1, "2": 2})
    assert Journal(path, {}).done == {"0": 0, "1": 1, "2": 2}


def test_which_worker_is_done_first_does_not_change_a_group_s_digest(tmp_path):
    for name, units in (("a", ("0", "1")), ("b", ("1", "0"))):
        journal = Journal(tmp_path / name / ".wsi_seg/journal.jsonl", {})
        for unit in units:
            journal.record(unit)
        (tmp_path / name / "zarr.json").write_text("{}")
        write_digests(tmp_path / name)
    assert store_digest(tmp_path / "a") == store_digest(tmp_path / "b") != ""


def test_other_settings_are_named_and_the_message_says_whether_work_can_go_on(tmp_path):
    path = tmp_path / "journal.jsonl"
    assert read_settings(path) == {}
    Journal(path, {"a": 1})
    assert read_settings(path) == {"a": 1}
    with pytest.raises(StoreError, match=r"unfinished work .* a was 1 and is now 2; repeat"):
        Journal(path, {"a": 2})
    with pytest.raises(StoreError, match=r"was made with other settings: a was 1 .* again"):
        Journal(path, {"a": 2}, complete=True)
