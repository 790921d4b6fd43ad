"""What `wsi-seg doctor` says of this machine, and of machines that lack something."""

import errno
import json
import os
import re
import stat
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from wsi_seg.cli.app import app
from wsi_seg.doctor import Examination, Finding, examine
from wsi_seg.doctor.choice import _compile
from wsi_seg.doctor.decoders import _CODECS, _picture, _wrong, examine_decoders
from wsi_seg.doctor.folder import examine_folder, file_system, is_shared
from wsi_seg.doctor.gpus import _driver
from wsi_seg.doctor.machine import _processor
from wsi_seg.doctor.software import COMPILED, PURPOSES, examine_extras, examine_libraries

MOUNTS = """\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:40 / /shared rw,relatime shared:5 - nfs4 server:/export rw
31 30 0:41 / /shared/my\\040slides rw - lustre mds@tcp:/lfs rw
32 22 0:42 / /home rw - fuse.glusterfs vol rw
"""


def by_name(findings):
    return {found.name: found for found in findings}


def unwritable(folder):
    """Give a folder that not even the superuser may write to, or at least this user may not."""
    if os.geteuid() != 0:
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
        return folder
    if not Path("/sys").is_dir():
        pytest.skip("the superuser may write everywhere")
    return Path("/sys")


def run(*words):
    return CliRunner().invoke(app, ["doctor", *map(str, words)])


def test_this_machine_works_and_nothing_is_left_in_the_folder(tmp_path):
    done = run(tmp_path, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["status"], found["works"]) == ("done", True)
    assert list(found["parts"]) == [
        "Software", "Machine", "Decoders", "Folder", "What infer would choose",
    ]  # fmt: skip
    names = {one["name"] for part in found["parts"].values() for one in part}
    assert names >= {"Python", "torch", "zarr", "cores", "memory", "processor", "locks", "rename",
                     "speed", "free space", "--device", "--precision", "--readers"}  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_lines_are_of_80_columns_and_say_the_verdict_as_a_word(tmp_path):
    text = run(tmp_path).stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "  ok   Python: " in text
    assert "\x1b" not in text  # colours are for terminals


def test_a_folder_that_cannot_be_written_fails_with_a_sentence_and_code_1(tmp_path):
    folder = unwritable(tmp_path)
    done = run(folder, "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["status"], found["works"]) == ("failed", False)
    said = by_name(examine_folder(folder))["write permission"]
    assert said.verdict == "bad"
    assert f"as user {os.geteuid()}" in said.value
    assert "choose another folder" in said.advice
    assert "does not work: write permission" in done.stderr


def test_a_folder_without_locks_is_a_note_since_nothing_rests_on_them(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    found = by_name(examine_folder(tmp_path))["locks"]
    assert (found.verdict, found.value) == ("note", "not available (flock): No locks available")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_or_quota_is_one_sentence(tmp_path, monkeypatch, code):
    def refuse(path):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("wsi_seg.doctor.folder.sync", refuse)
    *_, last = found = list(examine_folder(tmp_path))
    assert [one.verdict for one in found].count("bad") == 1
    assert (last.name, last.value) == ("room", f"nothing can be written: {os.strerror(code)}")
    assert list(tmp_path.iterdir()) == []


def test_other_failures_are_named_one_by_one(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.utime", refuse)
    found = by_name(examine_folder(tmp_path))
    assert found["times of files"].value == "does not work: Input/output error"
    assert found["locks"].verdict == "ok"


def test_a_folder_whose_small_files_take_long_is_a_note(tmp_path, monkeypatch):
    def slow(path):
        time.sleep(0.03)

    monkeypatch.setattr("wsi_seg.doctor.folder.sync", slow)
    found = by_name(examine_folder(tmp_path))["small files"]
    assert found.verdict == "note"
    assert "thousands of small slides wait" in found.advice


def test_an_absent_folder_is_tried_where_it_would_be_made(tmp_path):
    found = by_name(examine_folder(tmp_path / "a/b"))
    assert str(tmp_path) in found["folder"].value
    assert found["write permission"].value == "yes"
    assert {one.verdict for one in found.values()} <= {"ok", "note"}
    assert list(tmp_path.iterdir()) == []


def test_an_address_is_not_taken_for_a_folder_here():
    (found,) = examine_folder(Path("s3://bucket/store.zarr"))
    assert found.verdict == "note"
    assert "s3://bucket/store.zarr is an address" in found.value


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "file").touch()
    assert by_name(examine_folder(tmp_path / "file"))["write permission"].verdict == "bad"


@pytest.mark.parametrize(
    ("folder", "kind", "shared"),
    [
        ("/tmp", "ext4", False),
        ("/shared/a", "nfs4", True),
        ("/shared/my slides/b", "lustre", True),
        ("/sharedness", "ext4", False),
        ("/home/x", "fuse.glusterfs", True),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(tmp_path, folder, kind, shared):
    (tmp_path / "mountinfo").write_text(MOUNTS)
    assert file_system(Path(folder), tmp_path / "mountinfo") == kind
    assert is_shared(kind) == shared


def test_without_a_list_of_mounts_the_kind_is_unknown(tmp_path):
    assert file_system(tmp_path, tmp_path / "absent") == "unknown"


REQUIRED = [
    "numpy>=1",
    "torch>=1000",
    "no-such-library>=2",
    "also-not-there>=1; extra == 'openslide'",
    "numpy>=1; extra == 'viewer'",
    "numpy>=1000; extra == 'report'",
    "not-for-this-python; python_version < '3'",
]


def test_libraries_that_lack_or_are_too_old_fail_with_what_to_run():
    found = by_name(examine_libraries(REQUIRED))
    assert found["numpy"].verdict == "ok"
    assert found["torch"].verdict == "bad"
    assert "expected >=1000" in found["torch"].value
    assert found["no-such-library"].value == "is not installed"
    assert "pip install 'no-such-library>=2'" in found["no-such-library"].advice
    assert not {"also-not-there", "not-for-this-python"} & set(found)


def test_compiled_libraries_are_among_those_that_are_required():
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    assert set(COMPILED) <= {re.split("[<>=]", one)[0] for one in project["dependencies"]}


@pytest.mark.parametrize(
    ("library", "error", "parts"),
    [
        ("torch", "OSError('libcudnn.so.9: cannot open')", {"GPU", "choice"}),
        ("torch", "ImportError('\\n\\nlibcudnn.so.9: cannot open')", {"GPU", "choice"}),
        ("imagecodecs", "ImportError('libcudnn.so.9: cannot open')", {"decoders"}),
    ],
)
def test_a_library_that_cannot_be_loaded_is_named_and_all_else_is_looked_at(
    tmp_path, library, error, parts
):
    (tmp_path / f"{library}.py").write_text(f"raise {error}")
    done = subprocess.run(
        [sys.executable, "-m", "wsi_seg", "doctor", str(tmp_path), "--json"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])["parts"]
    bad = {one["name"]: one for part in found.values() for one in part if one["verdict"] == "bad"}
    assert set(bad) == {library} | parts
    assert "cannot be loaded: libcudnn.so.9: cannot open" in bad[library]["value"]
    assert f"pip install --force-reinstall {library}==" in bad[library]["advice"]
    assert len(found["Folder"]) > 8


def test_a_missing_extra_is_a_note_that_names_what_it_brings():
    found = by_name(examine_extras(REQUIRED))
    assert set(found) == {"extra openslide", "extra viewer", "extra report"}
    assert found["extra viewer"].verdict == "ok"
    assert found["extra report"].verdict == "note"
    lacking = found["extra openslide"]
    assert (lacking.value, lacking.verdict) == ("also-not-there is not installed", "note")
    assert "MIRAX" in lacking.advice
    assert "pip install 'wsi-seg[openslide]'" in lacking.advice


def test_a_folder_that_is_not_installed_is_said():
    assert by_name(examine_libraries([]))["wsi-seg"].verdict == "note"


def test_every_extra_for_users_has_its_purpose():
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    assert set(PURPOSES) == set(project["optional-dependencies"]) - {"all", "dev", "docs"}


def test_decoders_work_here_and_a_broken_one_is_named():
    assert {one.verdict for one in examine_decoders()} == {"ok"}
    picture = _picture()
    for _, codec, most in _CODECS:
        assert _wrong(codec, picture, most) == ""
    assert "does not work" in _wrong("nosuchcodec", picture, 0)
    assert "changes pixels" in _wrong("jpeg8", picture, 0)


def test_flags_of_the_processor(tmp_path):
    (tmp_path / "cpuinfo").write_text("model name : X\nflags\t\t: fpu avx2 avx512f amx_bf16\n")
    value = _processor(tmp_path / "cpuinfo").value
    assert value == "AVX2, AVX-512, AMX; without AVX-512 BF16"
    assert _processor(tmp_path / "absent").value


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX Open Kernel Module  580.159.04  Release", "580.159.04"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54  Tue", "535.54"),
        ("something else", "unknown"),
    ],
)  # fmt: skip
def test_the_driver_has_its_version_in_linux_list(tmp_path, text, version):
    (tmp_path / "version").write_text(text)
    assert _driver(tmp_path / "version") == version


def test_no_driver(tmp_path):
    assert _driver(tmp_path / "absent") is None


def test_without_a_gpu_the_choice_is_the_cpu_and_why(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("has a GPU")
    found = examine(tmp_path)
    choice = by_name(found.parts["What infer would choose"])
    assert choice["--device"].value == "cpu, because torch sees no GPU"
    assert by_name(found.parts["Machine"])["GPU"].verdict == "note"


def test_a_gpu_without_a_compiler_is_a_note_that_says_what_lacks(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    found = _compile("cuda:0")
    assert (found.name, found.verdict) == ("--compile", "note")
    assert found.value == "off, because this machine lacks a compiler of C (gcc)"


words = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30)


@given(st.lists(words, min_size=1, max_size=40), st.sampled_from(["ok", "note", "bad"]))
def test_any_finding_fits_80_columns_with_all_its_words(found, verdict):
    examination = Examination({"Part": (Finding("name", " ".join(found), verdict),)})
    lines = examination.lines()
    assert max(map(len, lines)) <= 80
    said = " ".join(lines).split()
    assert all(word in said for word in found)  # none is broken
    assert examination.works == (verdict != "bad")
