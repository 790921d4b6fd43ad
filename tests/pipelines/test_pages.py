"""The READMEs of the pipelines can be run, and scores compared with scores.json."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.run import commands_of, expected_scores, shortened

FOLDER = Path(__file__).parents[2] / "pipelines"

PAGE = """# Task

```sh
dice=$(cat pipelines/task/dice)
echo '{"classes": {"nucleus": {"dice": '$dice'}}}' > scores.json
```

    exit 1

```yaml
name: not a command
```

```sh
test -d "$DATA"
```
"""


def test_every_pipeline_has_scores_that_are_in_its_readme():
    assert {path.parent.name for path in FOLDER.glob("*/recipe.yaml")} == set(expected_scores())
    for task, scores in expected_scores().items():
        page = (FOLDER / task / "README.md").read_text(encoding="utf-8")
        assert scores
        for score in scores:
            assert re.search(rf"(?<!\d){score.score:.3f}(?!\d)", page), (task, score)


def test_only_shell_blocks_are_commands():
    assert commands_of(PAGE).splitlines()[-1] == 'test -d "$DATA"'
    assert "exit 1" not in commands_of(PAGE)
    assert "name" not in commands_of(PAGE)


def test_only_trainings_are_shortened(tmp_path):
    program = tmp_path / "wsi-seg"
    program.write_text("#!/bin/sh\necho $*\n")
    program.chmod(0o755)
    done = subprocess.run(
        [
            "bash",
            "-euc",
            shortened("wsi-seg train recipe.yaml --out run\nwsi-seg infer 'a b'", 0.2),
        ],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )
    assert done.stdout.splitlines() == [
        "train recipe.yaml --out run --set train.max_minutes=0.2", "infer a b",
    ]  # fmt: skip


@pytest.mark.parametrize(("dice", "status"), [("0.1", 0), (None, 1)])
def test_in_a_short_run_only_failures_count(tmp_path, dice, status):
    done = run(tmp_path, dice, "--minutes", "1")
    assert done.returncode == status
    assert ("DIFFERS" in done.stdout) == (dice is not None)


def run(tmp_path, dice, *options):
    """Run the script on a README whose commands reach this Dice, or fail; 0.5 is expected."""
    folder = tmp_path / "pipelines"
    (folder / "task").mkdir(parents=True)
    shutil.copyfile(FOLDER / "run.py", folder / "run.py")
    (folder / "task" / "README.md").write_text(PAGE)
    if dice is not None:
        (folder / "task" / "dice").write_text(dice)
    score = {"file": "scores.json", "figure": "classes.nucleus.dice", "score": 0.5}
    score |= {"tolerance": 0.1, "device": "CPU"}
    (folder / "scores.json").write_text(json.dumps({"task": [score]}))
    return subprocess.run(
        [
            sys.executable,
            folder / "run.py",
            "--data",
            tmp_path,
            "--work",
            tmp_path / "work",
            *options,
        ],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("dice", "status"), [("0.5", 0), ("0.58", 0), ("0.61", 1), ("0.39", 1)])
def test_a_score_outside_its_tolerance_differs(tmp_path, dice, status):
    done = run(tmp_path, dice)
    assert done.returncode == status, done.stderr
    assert ("DIFFERS" in done.stdout) == bool(status)
    assert f"{float(dice):.3f}, expected 0.500 +- 0.100" in done.stdout


def test_a_command_that_fails_is_reported(tmp_path):
    done = run(tmp_path, None)
    assert done.returncode == 1
    assert "task: a command failed" in done.stdout
