"""Run the commands on the pages of the pipelines; compare their scores with scores.json.

    python pipelines/run.py [TASK ...] [--data ../shared/data] [--work FOLDER] [--minutes 0.2]

The blocks of a page that begin with ```sh run in order in WORK/TASK, a new folder that holds a copy
of `pipelines`. A score further from the one in scores.json than its tolerance, or a command that
fails, makes the exit status 1. A tolerance is what chance and another processor move. With
--minutes each phase of a training ends after that time: all commands are tried, and scores do not
count.
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
    """A figure that the commands of a page come to.

    Parameters
    ----------
    file
        JSON that they write, from their working folder on.
    figure
        Keys that lead to it, with dots between them.
    score, tolerance
        What it was, and how far from that it may be.
    device
        Where it was that.
    """

    file: str
    figure: str
    score: float
    tolerance: float
    device: str

    def found(self, folder: Path) -> float:
        """Read the figure of a run in this folder."""
        value = json.loads((folder / self.file).read_text(encoding="utf-8"))
        for key in self.figure.split("."):
            value = value[key]
        return float(value)

    def agrees(self, found: float) -> bool:
        """Whether a figure is near enough."""
        return abs(found - self.score) <= self.tolerance


def expected_scores() -> dict[str, list[Score]]:
    """Scores of each task, from scores.json."""
    tasks = json.loads((FOLDER / "scores.json").read_text(encoding="utf-8"))
    return {task: [Score(**score) for score in scores] for task, scores in tasks.items()}


def commands_of(page: str) -> str:
    """Join the blocks of a page that begin with ```sh to one script."""
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE))


def shortened(script: str, minutes: float) -> str:
    """Let each training of a script end after some minutes."""
    return f"""wsi-seg() {{
  if [ "$1" = train ]; then set -- "$@" --set train.max_minutes={minutes}; fi
  command wsi-seg "$@"
}}
{script}"""


def run_page(task: str, data: Path, folder: Path, minutes: float | None) -> bool:
    """Run the commands of a page in a folder that is made; return whether none failed."""
    shutil.copytree(FOLDER, folder / "pipelines")
    script = commands_of((FOLDER / task / "README.md").read_text(encoding="utf-8"))
    if minutes is not None:
        script = shortened(script, minutes)
    # The programs of this environment, whatever else is on the path.
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": search, "DATA": str(data)}
    return not subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script], cwd=folder, env=environment, check=False
    ).returncode


def compare(task: str, folder: Path, scores: list[Score]) -> bool:
    """Print the scores of a run next to those expected; return whether all agree."""
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
    """Run the tasks one after the other and say at the end what differs."""
    expected = expected_scores()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(expected))
    parser.add_argument("--data", type=Path, default=FOLDER.parents[1] / "shared" / "data")
    parser.add_argument("--work", type=Path, help="new folder; a temporary one by default")
    parser.add_argument("--minutes", type=float, help="of each training; scores do not count then")
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
