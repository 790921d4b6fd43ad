"""A file is written whole or not at all."""

from pathlib import Path

import pytest

from wsi_seg.errors import OutputError, StoreError
from wsi_seg.files.atomic import atomic_path, write_atomic
from wsi_seg.files.half_written import partial_path, remove_partials


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_and_bytes_come_back(tmp_path: Path) -> None:
    write_atomic(tmp_path / "new" / "a.txt", "µm\n")
    write_atomic(tmp_path / "new" / "a.bin", b"\x00\xff")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "µm\n".encode()
    assert (tmp_path / "new" / "a.bin").read_bytes() == b"\x00\xff"
    assert _names(tmp_path / "new") == ["a.bin", "a.txt"]


@pytest.mark.parametrize("error", [ValueError("x"), StoreError("x"), KeyboardInterrupt()])
def test_after_an_error_the_old_file_stays_and_nothing_else(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def fail_halfway() -> None:
        with atomic_path(path) as partial:
            partial.write_text("half of the n")
            assert path.read_text() == "old"
            raise error

    with pytest.raises(type(error)):
        fail_halfway()
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["a.txt"]


def test_an_error_names_the_file_and_the_cause(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot write .*folder/a\.txt: .+"):
        write_atomic(tmp_path / "folder" / "a.txt", "x")
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*taken: Is a directory"):
        write_atomic(tmp_path / "taken", "x")
    assert _names(tmp_path) == ["folder", "taken"]


def test_an_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="cannot write /elsewhere: disk full"),
        atomic_path(tmp_path / "a.txt"),
    ):
        raise OutputError("cannot write /elsewhere: disk full")


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"cannot write .*a\.txt: No such file"),
        atomic_path(tmp_path / "a.txt"),
    ):
        pass


def test_what_a_kill_left_of_complete_files_is_removed(tmp_path):
    files = [tmp_path / "a.txt", tmp_path / ("b" * 240), tmp_path / "other"]
    for file in files:
        partial_path(file).write_bytes(b"half")
        write_atomic(file, "whole")
        partial_path(file).write_bytes(b"half")
    remove_partials(files[:2])
    assert sorted(tmp_path.iterdir()) == sorted([*files, partial_path(files[2])])
