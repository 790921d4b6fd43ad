import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tests.commands import run
from wsi_seg.cli.console import Terminal, configure_logging, run_verb
from wsi_seg.errors import BatchError, SlideError
from wsi_seg.store.lock import locked


def done(terminal: Terminal) -> dict[str, object]:
    terminal.say("2 slides, all done")
    terminal.next_command("wsi-seg", "infer", Path("my store.zarr"))
    return {"slides": 2, "out": Path("a/b")}


def test_text_goes_to_stdout(capsys):
    run_verb(done, False)
    out, err = capsys.readouterr()
    assert out == "2 slides, all done\nNext: wsi-seg infer 'my store.zarr'\n"
    assert err == ""


def test_json_is_the_last_line_of_stdout_and_text_goes_to_stderr(capsys):
    run_verb(done, True)
    out, err = capsys.readouterr()
    assert json.loads(out) == {"status": "done", "slides": 2, "out": "a/b"}
    assert out.count("\n") == 1
    assert "2 slides" in err


@pytest.mark.parametrize("json_mode", [False, True])
def test_our_error_is_one_sentence_and_exit_1(capsys, json_mode):
    def body(terminal: Terminal) -> dict[str, object]:
        terminal.progress.start("Read", 10, "MB")
        raise SlideError("a.tif: got text [b]; expected a TIFF")

    with pytest.raises(typer.Exit) as exit_info:
        run_verb(body, json_mode)
    assert exit_info.value.exit_code == 1
    out, err = capsys.readouterr()
    assert err == "error: a.tif: got text [b]; expected a TIFF\n"
    if json_mode:
        assert json.loads(out)["status"] == "failed"
        assert "a.tif" in json.loads(out)["error"]


def test_a_batch_error_is_a_table(capsys):
    def body(_: Terminal) -> dict[str, object]:
        raise BatchError({"a": "no mpp", "b": "cut short"}, done=3)

    with pytest.raises(typer.Exit):
        run_verb(body, True)
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        "error: 2 of 5 slides failed, 3 done",
        "slide\treason",
        "a\tno mpp",
        "b\tcut short",
    ]
    assert json.loads(out)["failures"] == {"a": "no mpp", "b": "cut short"}


def test_interrupt_says_how_to_go_on(capsys):
    def body(_: Terminal) -> dict[str, object]:
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as exit_info:
        run_verb(body, False)
    assert exit_info.value.exit_code == 130
    assert "same command" in capsys.readouterr().err


def test_interrupt_amid_overwriting_says_that_it_must_not_start_again(capsys):
    def body(_: Terminal) -> dict[str, object]:
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit):
        run_verb(body, False, overwrites=True)
    assert "run the same command without --overwrite to continue" in capsys.readouterr().err


def test_a_defect_is_not_hidden():
    def body(_: Terminal) -> dict[str, object]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_verb(body, False)


def test_a_closed_pipe_gives_no_traceback():
    code = (
        "from wsi_seg.cli.console import run_verb\n"
        "def body(terminal):\n"
        "    for _ in range(100000): terminal.say('line')\n"
        "    return {}\n"
        "import typer; app = typer.Typer(); app.command()(lambda: run_verb(body, False)); app()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.fixture
def _root_logger():
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    logging.getLogger("wsi_seg").setLevel(logging.NOTSET)
    logging.captureWarnings(capture=False)


@pytest.mark.usefixtures("_root_logger")
def test_other_libraries_are_quiet(capsys):
    configure_logging("info")
    logging.getLogger("wsi_seg.inference").info("ours")
    logging.getLogger("lightning.pytorch").warning("theirs")
    logging.getLogger("tifffile").error("corrupt tag")
    logging.getLogger("lightning.pytorch").error("grave")
    assert (
        capsys.readouterr().err == "INFO wsi_seg.inference: ours\nERROR lightning.pytorch: grave\n"
    )
    configure_logging("debug")
    logging.getLogger("tifffile").warning("tag")
    assert "tag" in capsys.readouterr().err


def test_a_held_folder_names_the_verb(tmp_path):
    owners = []

    def body(_: Terminal) -> dict[str, object]:
        (note,) = (tmp_path / "s" / ".wsi_seg/run").glob("*.alive")
        owners.append(note.read_text())
        return {}

    body.__module__ = "wsi_seg.cli.tile"
    run_verb(body, json_mode=False, writes=tmp_path / "s", makes=True)
    assert '"wsi-seg tile"' in owners[0]


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_every_task_of_a_scheduler_keeps_off_a_folder_in_use(variable, tmp_path, monkeypatch):
    monkeypatch.setenv(variable, "1")
    (tmp_path / "s.zarr").mkdir()
    with locked(tmp_path / "s.zarr", "wsi-seg tile"):
        refused = run("annotate", tmp_path / "s.zarr", tmp_path)
    assert refused.exit_code == 1
    assert "is in use by `wsi-seg tile`" in refused.stderr


@pytest.mark.parametrize(("rank", "refuses"), [("1", False), ("0", True), ("", True)])
def test_further_processes_of_a_training_write_where_the_first_one_does(
    rank, refuses, tmp_path, monkeypatch
):
    monkeypatch.setenv("LOCAL_RANK", rank)
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run", "wsi-seg train"):
        said = run("train", tmp_path / "no.yaml", "--out", tmp_path / "run")
    assert said.exit_code == 1
    assert ("is in use by" in said.stderr) == refuses


@pytest.mark.usefixtures("_root_logger")
class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_screen_slides_with_the_same_reason_share_a_row(monkeypatch):
    def body(terminal: Terminal) -> dict[str, object]:
        failures = {f"s{number}": f"slide 's{number}' has no mpp" for number in range(14)}
        raise BatchError({**failures, "z": "cut short"}, done=0)

    monkeypatch.setattr(sys, "stderr", screen := Screen())
    with pytest.raises(typer.Exit):
        run_verb(body, False)
    text = screen.getvalue()
    assert text.count("has no mpp") == 1
    assert "slide 's0' has no mpp" in text
    assert "and 4 more" in text
    assert "cut short" in text


def test_secrets_are_in_no_table_and_no_log(capsys):
    address = "https://me:word@host/a.svs?X-Amz-Signature=12"

    def body(terminal):
        logging.getLogger("wsi_seg").error("cannot read %s", address)
        terminal.table(("slide", "reason"), [("a", address)])
        raise BatchError({"a": f"cannot read {address}"}, done=0)

    configure_logging("warning")
    with pytest.raises(typer.Exit):
        run_verb(body, False)
    captured = capsys.readouterr()
    assert captured.err.count("https://host/a.svs") == 2
    assert "word" not in captured.out + captured.err
    assert "Signature" not in captured.out + captured.err
