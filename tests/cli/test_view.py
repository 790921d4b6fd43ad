import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from typer.testing import CliRunner

from wsi_seg.cli.app import app
from wsi_seg.cli.console import Terminal
from wsi_seg.store import create_collection
from wsi_seg.viewer.serve import LIBRARY


def test_a_store_without_slides_is_refused(tmp_path):
    create_collection(tmp_path / "store.zarr")
    result = CliRunner().invoke(app, ["view", str(tmp_path / "store.zarr")])
    assert result.exit_code == 1
    assert "error: " in result.output


def test_the_address_to_open_has_the_token_that_lets_in(capsys):
    Terminal().invite("http://node7:8123/?token=secret")
    assert capsys.readouterr().out == "Open http://node7:8123/?token=secret\n"


@pytest.mark.skipif(not LIBRARY.is_file(), reason="needs the page's library; run `make viewer`")
@pytest.mark.skipif(sys.platform != "linux", reason="has one loopback address")
def test_the_address_it_prints_for_other_hosts_opens_the_page(tmp_path):
    create_collection(tmp_path / "store.zarr")
    (tmp_path / "store.zarr/slide").mkdir()
    (tmp_path / "store.zarr/slide/zarr.json").write_text("{}")
    command = [sys.executable, "-m", "wsi_seg", "view", "store.zarr", "--port", "0",
               "--host", "127.0.0.2"]  # fmt: skip
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            address = server.stdout.readline().split()[-1]
            browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            with browser.open(address) as page:
                assert b"wsi_seg" in page.read()
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(address.partition("?")[0])
        finally:
            server.kill()


@pytest.mark.skipif(not LIBRARY.is_file(), reason="needs the page's library; run `make viewer`")
def test_it_serves_until_it_is_interrupted(tmp_path):
    create_collection(tmp_path / "store.zarr")
    (tmp_path / "store.zarr/slide").mkdir()
    (tmp_path / "store.zarr/slide/zarr.json").write_text("{}")
    command = [sys.executable, "-m", "wsi_seg", "view", "store.zarr", "--port", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True) as server:
        assert server.stdout is not None
        try:
            said = [server.stdout.readline() for _ in range(3)]
            address = said[0].split()[-1]
            assert address.startswith("http://127.0.0.1:")
            with urllib.request.urlopen(address) as page:
                assert b"wsi_seg" in page.read()
            with pytest.raises(urllib.error.HTTPError, match="422"):
                urllib.request.urlopen(address + "slides/slide")
            server.send_signal(signal.SIGINT)
            _, errors = server.communicate(timeout=20)
        finally:
            server.kill()
    assert server.returncode == 0
    assert "wsi-seg annotate store.zarr review --name review" in said[2]
    assert "WARNING wsi_seg.viewer.app: 422 /slides/slide" in errors
    assert "Traceback" not in errors
