"""The commands on the page of each pipeline run through, as they stand, on the real data."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

# What the commands write last, and the least of it: what was reached, less what chance moves.
PAGES = {
    "hubmap_kidney": ("scores-objects/scores.json", "pooled_dice", 0.8),
    "siim_pneumothorax": ("scores-siim-0/scores.json", "pooled_dice", 0.3),
    "stas_lung": ("scores-stas/scores.json", "pooled_dice", 0.2),
    "nuclei_dsb2018": ("scores-nuclei/scores.json", "pooled_dice", 0.85),
    "lung_nodule": ("froc-2.json", "cpm", 0.2),
}


def test_every_pipeline_has_its_line_here():
    assert {path.parent.name for path in REPOSITORY.glob("pipelines/*/recipe.yaml")} == set(PAGES)


@pytest.mark.pipelines
@pytest.mark.parametrize("task", PAGES)
def test_the_commands_of_a_page_run_through(task, shared_data, tmp_path):
    shutil.copytree(REPOSITORY / "pipelines", tmp_path / "pipelines")
    page = (tmp_path / "pipelines" / task / "README.md").read_text(encoding="utf-8")
    commands = "\n".join(re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL))
    # The program of this checkout, whatever else is installed.
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "wsi-seg"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m wsi_seg "$@"\n')
    program.chmod(0o755)
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    search = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
    paths = {"PATH": search, "PYTHONPATH": str(REPOSITORY), "DATA": str(shared_data)}
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands], cwd=tmp_path, env=os.environ | paths,
        check=True,
    )  # fmt: skip
    file, figure, least = PAGES[task]
    found = json.loads((tmp_path / file).read_text(encoding="utf-8"))
    assert least <= value_of(found, figure) <= 1


def value_of(document, figure):
    """The first value of that name, at any depth."""
    if isinstance(document, dict):
        if figure in document:
            return document[figure]
        document = list(document.values())
    if isinstance(document, list):
        for one in document:
            if (found := value_of(one, figure)) is not None:
                return found
    return None
