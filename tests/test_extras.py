"""What works without the optional libraries, and what is said where one is needed."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.makers.coordinates import write_coordinate_tiff
from wsi_seg.extras import EXTRAS
from wsi_seg.geometry import Extent

# Makes libraries look as if they were not installed.
ABSENT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {names!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Absent())
"""


# torch's compiler looks for these when it is imported, and would not take our error for an answer.
LOOKED_FOR = {"onnxruntime", "onnxscript"}
HIDDEN = tuple(sorted(set(EXTRAS) - LOOKED_FOR))


def run(code, *arguments, without=HIDDEN):
    command = [sys.executable, "-c", ABSENT.format(names=without) + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def verb(*words):
    return run("from wsi_seg.cli.app import main; main()", *words)


def test_every_optional_library_is_in_its_extra():
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    names = {"openslide": "openslide-python", "dask_jobqueue": "dask-jobqueue"}
    for library, extra in EXTRAS.items():
        listed = project["optional-dependencies"][extra]
        assert any(line.startswith(names.get(library, library)) for line in listed), library
        assert not any(
            line.startswith(names.get(library, library)) for line in project["dependencies"]
        )


def test_the_base_install_has_what_the_main_verbs_import():
    modules = ("ingest.run", "ingest.verify", "masks.annotate", "learn.train", "inference.run",
               "inference.distribute", "exporting.run", "evaluation.compare")  # fmt: skip
    # torchmetrics looks for matplotlib's package, which is installed here, and imports it.
    code = "; ".join(f"import wsi_seg.{n}" for n in modules)
    done = run(code, without=sorted(set(HIDDEN) - {"matplotlib"}))
    assert done.returncode == 0, done.stderr


def test_the_base_install_tiles(tmp_path):
    write_coordinate_tiff(tmp_path / "a.tif", extents=[Extent(height=300, width=200)])
    done = verb("tile", tmp_path / "a.tif", "--out", tmp_path / "s.zarr")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "s.zarr/a/labels/tissue/zarr.json").is_file()


@pytest.mark.parametrize(
    ("words", "library", "extra"),
    [
        (["view", "s.zarr"], "uvicorn", "viewer"),
        (["preview", "s.zarr"], "matplotlib", "report"),
        (["info", "ct.nii.gz/z0000"], "SimpleITK", "volume"),
        (["info", "a.mrxs"], "openslide", "openslide"),
        (["info", "a.dcm"], "pydicom", "dicom"),
    ],
)
def test_what_is_missing_is_named_with_its_extra(tmp_path, monkeypatch, words, library, extra):
    monkeypatch.chdir(tmp_path)
    for name in ("ct.nii.gz", "a.mrxs", "a.dcm"):
        (tmp_path / name).write_bytes(bytes(200))
    done = verb(*words)
    assert done.returncode == 1
    said = f"{library}, which is not installed; run: pip install 'wsi-seg[{extra}]'"
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
