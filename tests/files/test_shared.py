"""Folders that other processes remove while they are made."""

from pathlib import Path

import pytest

from wsi_seg.files.shared import make_folder


def test_a_folder_that_is_removed_meanwhile_is_made(tmp_path, monkeypatch):
    is_dir, looks = Path.is_dir, list[Path]()

    def removed(path):
        """Answer pathlib, which has just found the folder, after another process removed it."""
        if not looks:
            looks.append(path)
            path.rmdir()
        return is_dir(path)

    (tmp_path / "run").mkdir()
    monkeypatch.setattr(Path, "is_dir", removed)
    make_folder(tmp_path / "run")
    assert looks == [tmp_path / "run"]
    assert is_dir(tmp_path / "run")


@pytest.mark.parametrize("name", ["file", "file/run", "link", "link/run"])
def test_what_is_no_folder_is_an_error(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises((FileExistsError, NotADirectoryError)):
        make_folder(tmp_path / name)
