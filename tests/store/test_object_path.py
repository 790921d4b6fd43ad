"""Paths in a bucket: pathlib's language, and conditional writes."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.object_servers import SERVERS
from tests.object_store import in_bucket, object_store
from wsi_seg.errors import AddressError, OutputError
from wsi_seg.files.atomic import append_line, create_new, move_folder, remove_folder, write_atomic
from wsi_seg.files.object_path import object_path, place
from wsi_seg.files.object_store import client_of


@pytest.fixture
def gate():
    with object_store() as gate:
        yield gate


@pytest.fixture(params=["s3", "az", "gs", "folder"])
def root(request, tmp_path):
    if request.param == "folder":
        yield tmp_path / "x"
        return
    with object_store(request.param):
        yield in_bucket("x", request.param)


def test_files_and_folders_are_found_as_on_a_disk(root):
    for name in ("b/2", "a", "b/c/3", "[x]*", "日本"):
        write_atomic(root / name, name)
    assert sorted(path.name for path in root.iterdir()) == ["[x]*", "a", "b", "日本"]
    assert (root / "b").is_dir()
    assert not (root / "b").is_file()
    assert (root / "b" / "2").exists()
    assert not (root / "b" / "4").exists()
    found = [(folder.relative_to(root).parts, sorted(inside), sorted(files))
             for folder, inside, files in root.walk()]  # fmt: skip
    assert found[0] == ((), ["b"], ["[x]*", "a", "日本"])
    assert found[1:] == [(("b",), ["c"], ["2"]), (("b", "c"), [], ["3"])]
    assert [path.relative_to(root).parts for path in root.glob("*/2")] == [("b", "2")]
    assert (root / "b" / "2").stat().st_size == 3
    assert (root / "日本").read_text() == "日本"
    (root / "a").unlink()
    (root / "a").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        (root / "a").unlink()
    with pytest.raises(FileNotFoundError):
        (root / "a").read_bytes()


def test_only_one_of_many_makes_a_file(root):
    root.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda n: create_new(root / "claim", b"%d" % n), range(8)))
    assert sum(made) == 1
    assert (root / "claim").read_bytes() == b"%d" % made.index(True)


def test_lines_of_many_are_all_there(root):
    root.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: append_line(root / "journal", b"%d\n" % n), range(12)))
    lines = (root / "journal").read_text().splitlines()
    assert sorted(map(int, lines)) == list(range(12))


def test_a_folder_moves_and_goes(root):
    for name in ("zarr.json", "c/0", ".own/journal"):
        write_atomic(root / "old" / name, name)
    move_folder(root / "old", root / "new", last="zarr.json", first=".own/journal")
    assert not (root / "old").exists()
    files = [path for path in root.walk() if path[2]]
    assert len(files) == 3
    assert (root / "new" / "c" / "0").read_text() == "c/0"
    remove_folder(root / "new", first="zarr.json")
    remove_folder(root / "new")
    assert not (root / "new").exists()


def test_an_object_is_opened_only_to_be_read(gate):
    path = in_bucket("a")
    path.write_bytes(b"x\ny")
    with path.open("rb") as file:
        assert file.read() == b"x\ny"
    with path.open() as file:
        assert file.read() == "x\ny"
    with pytest.raises(AddressError, match="written whole or not at all"):
        path.open("wb")
    with pytest.raises(TypeError, match="is an address"):
        open(path)  # noqa: PTH123, SIM115
    assert not in_bucket().is_file()


@pytest.mark.parametrize("scheme", SERVERS)
def test_a_bucket_that_is_missing_is_named(scheme):
    missing: Any = place(f"{scheme}://no-such-bucket/a")
    with object_store(scheme):
        with pytest.raises(OutputError, match="there is no such bucket"):
            write_atomic(missing, b"")
        with pytest.raises(AddressError, match="there is no such bucket"):
            missing.sizes()


def test_of_many_objects_those_that_are_gone_do_not_keep_the_others(root):
    for number in range(0, 40, 2):
        write_atomic(root / str(number), b"")
    if (remote := object_path(root)) is not None:
        remote.remove_all([remote / str(number) for number in range(40)])
    remove_folder(root)
    assert not root.exists()


NAMES = (
    "a#b", "a?b", "a;b", "a%20b", "a&b=c", "with space", 'q"uote', "a+b", "[x]*", "日本語", "C:d",
    "{y}", "a@b", "x" * 200,
)  # fmt: skip


def test_any_name_is_written_listed_copied_and_removed(root):
    (root / "new").mkdir(parents=True)
    for name in NAMES:
        write_atomic(root / "old" / name / name, name)
        move_folder(root / "old" / name, root / "new" / name, last=name, first=name)
        assert [path.name for path in (root / "new" / name).iterdir()] == [name]
        assert (root / "new" / name / name).read_text() == name
        assert not (root / "old" / name).exists()
    assert sorted(path.name for path in (root / "new").iterdir()) == sorted(NAMES)


def test_credentials_come_from_a_profile(gate, tmp_path, monkeypatch):
    (tmp_path / "credentials").write_text(
        "[lab]\naws_access_key_id = OF-THE-LAB\naws_secret_access_key = secret\n"
    )
    in_bucket("a").is_file()
    assert gate.signed_by == {"key"}
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    client_of.cache_clear()
    in_bucket("a").is_file()
    assert gate.signed_by == {"key", "OF-THE-LAB"}
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    client_of.cache_clear()
    in_bucket("a").is_file()
    assert gate.signed_by == {"key", "OF-THE-LAB", "nobody"}
