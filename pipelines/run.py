"""Run the commands of the pipelines' READMEs, and compare the scores with scores.json.

    python pipelines/run.py [TASK ...] [--data ../shared/data] [--work FOLDER] [--minutes 0.2]

The ```sh blocks of a README run in order in WORK/TASK, a new folder with a copy of `pipelines`. The
exit status is 1 if a command fails, or if a score differs from scores.json by more than its
tolerance, which allows for random effects and other processors. With --minutes, each phase of a
training stops after this time: all commands are run, and scores are ignored.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent.resolve()


@dataclass(frozen=True)
class Score:
    """Expected score of a README's commands.

    Parameters
    ----------
    file
        JSON file with the score, relative to the working folder.
    figure
        Dotted path of the score in the file.
    score, tolerance
        Expected value, and the largest accepted difference.
    device
        Device on which it was measured.
    """

    file: str
    figure: str
    score: float
    tolerance: float
    device: str

    def found(self, folder: Path) -> float:
        """Read the score of a run in this folder."""
        value = json.loads((folder / self.file).read_text(encoding="utf-8"))
        for key in self.figure.split("."):
            value = value[key]
        return float(value)

    def agrees(self, found: float) -> bool:
        """Return whether a score is within the tolerance."""
        return abs(found - self.score) <= self.tolerance


def expected_scores() -> dict[str, list[Score]]:
    """Read the expected scores of each task from scores.json."""
    tasks = json.loads((FOLDER / "scores.json").read_text(encoding="utf-8"))
    return {task: [Score(**score) for score in scores] for task, scores in tasks.items()}


def commands_of(page: str) -> str:
    """Join the ```sh blocks of a README into one script."""
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE))


def shortened(script: str, minutes: float) -> str:
    """Limit each training of a script to some minutes."""
    return f"""wsi-seg() {{
  if [ "$1" = train ]; then set -- "$@" --set train.max_minutes={minutes}; fi
  command wsi-seg "$@"
}}
{script}"""


def run_page(task: str, data: Path, folder: Path, minutes: float | None) -> bool:
    """Run the commands of a README in a new folder; return whether all succeeded."""
    shutil.copytree(FOLDER, folder / "pipelines")
    script = commands_of((FOLDER / task / "README.md").read_text(encoding="utf-8"))
    if minutes is not None:
        script = shortened(script, minutes)
    # Use the programs of this environment first.
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": search, "DATA": str(data)}
    return not subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script], cwd=folder, env=environment, check=False
    ).returncode


def compare(task: str, folder: Path, scores: list[Score]) -> bool:
    """Print the scores of a run with the expected ones; return whether all agree."""
    good = True
    for score in scores:
        found = score.found(folder)
        good &= score.agrees(found)
        print(
            f"{task}: {score.file} {score.figure} {found:.3f}, expected {score.score:.3f} +- "
            f"{score.tolerance:.3f} ({score.device}): {'ok' if score.agrees(found) else 'DIFFERS'}"
        )
    return good


def main() -> None:
    """Run the tasks one after the other, and report the differences at the end."""
    expected = expected_scores()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(expected))
    parser.add_argument("--data", type=Path, default=FOLDER.parents[1] / "shared" / "data")
    parser.add_argument("--work", type=Path, help="new folder; a temporary one by default")
    parser.add_argument("--minutes", type=float, help="limit each training; ignores scores")
    options = parser.parse_args()
    if unknown := set(options.tasks) - set(expected):
        parser.error(f"got {', '.join(sorted(unknown))}; expected any of {', '.join(expected)}")
    with tempfile.TemporaryDirectory(prefix="pipelines-") as temporary:
        work = (options.work or Path(temporary)).resolve()
        tasks = options.tasks or list(expected)
        data, minutes = options.data.resolve(), options.minutes
        ran = {task: run_page(task, data, work / task, minutes) for task in tasks}
        good = [ran[task] and compare(task, work / task, expected[task]) for task in tasks]
    for task in tasks:
        if not ran[task]:
            print(f"{task}: a command failed; it is the last one above its error")
    sys.exit(not all(good if minutes is None else ran.values()))


if __name__ == "__main__":
    main()
