import subprocess
import sys

import pytest
from typer.testing import CliRunner

from wsi_seg import __version__
from wsi_seg.cli.app import app, main

HEAVY = ("torch", "dask", "rasterio", "zarr", "lightning", "tifffile", "numpy")


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.output


def test_version():
    assert run("--version") == (0, f"wsi-seg {__version__}\n")


def test_a_misspelt_option_is_a_usage_error():
    code, text = run("infer", "--overlapp", "0.5")
    assert code == 2
    assert "Traceback" not in text


def test_help_loads_nothing_heavy():
    code = (
        "import sys\n"
        "import wsi_seg.cli.app\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "wsi_seg", "--help"], capture_output=True, text=True, check=True
    )
    assert "wsi-seg" in done.stdout


def test_an_interrupt_before_the_command_begins_is_no_traceback(monkeypatch):
    def interrupted(**_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("wsi_seg.cli.app.app", interrupted)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
