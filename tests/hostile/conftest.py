"""Hostile input: a verb on a broken file, and what it may do with it."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MEMORY = 1 << 30
SECONDS = 30
# What every verb may need, imported once: the forks share it.
_IMPORTED = (
    "zarr", "tifffile", "imagecodecs", "pydicom", "PIL.Image", "shapely", "rasterio.features",
    "skimage.measure", "wsi_seg.slides.tiff", "wsi_seg.slides.dicom", "wsi_seg.slides.omezarr",
    "wsi_seg.ingest.run", "wsi_seg.masks.annotate", "wsi_seg.masks.labels",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a verb ended."""

    words: tuple[str, ...]
    code: int
    seconds: float
    memory: int
    stdout: str
    stderr: str

    def require_bounded(self):
        """No signal (time, crash), no unexpected exception, and bounded memory."""
        report = f"{self}"
        assert self.code in {0, 1}, report
        assert "Traceback" not in self.stderr, report
        assert "defect of wsi_seg" not in self.stderr, report
        assert "llocate" not in self.stderr, report  # numpy met the bomb, not a limit
        assert self.memory < MEMORY, report

    def require_refused(self, *said):
        """Exit code 1 and one sentence that names the file."""
        self.require_bounded()
        assert self.code == 1, f"{self}"
        assert self.stderr.splitlines()[-1].strip(), f"{self}"
        assert "error: " in self.stderr
        for words in said:
            assert words in self.stderr, f"{self}"


class Verbs:
    """Runs verbs, each in a fork of one process that has imported what they need."""

    def __init__(self, *modules):
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("fork_verbs.py"), *_IMPORTED, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"},
        )

    def __call__(self, *words, folder, seconds=SECONDS, file_bytes=0):
        """Run one verb; files may appear below ``folder / "out"`` alone."""
        words = tuple(map(str, words))
        before = files_of(folder)
        asked = {"words": words, "folder": str(folder)}
        asked |= {"seconds": seconds, "file_bytes": file_bytes}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        outcome = Outcome(words, **json.loads(self._process.stdout.readline()))
        assert files_of(folder) == before, f"{outcome}"
        return outcome

    def close(self):
        self._process.communicate(timeout=60)


def files_of(folder):
    """Files outside of ``out``, with their sizes and times."""
    found = {}
    for place, folders, files in os.walk(folder):
        if Path(place) == folder and "out" in folders:
            folders.remove("out")
        for name in files:
            stat = os.lstat(os.path.join(place, name))  # noqa: PTH118 (names that are no text)
            found[os.path.join(place, name)] = stat.st_size, stat.st_mtime_ns  # noqa: PTH118
    return found


@pytest.fixture(scope="session")
def verbs():
    """Verbs that need no network."""
    verbs = Verbs()
    yield verbs
    verbs.close()


@pytest.fixture(scope="session")
def network_verbs():
    """Verbs that need a network: the forks share torch."""
    verbs = Verbs("torch", "wsi_seg.infer.run", "wsi_seg.report.preview", "wsi_seg.learn.train")
    yield verbs
    verbs.close()
