"""Owns the files of a shared command: its list of slides, results and failures.

All files are in one folder, so that one listing shows which slides are left.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

from wsi_seg.files.atomic import write_atomic
from wsi_seg.files.shared import names_in, read_replaced

# Result of a slide as JSON, or its error message.
Outcome = Literal["result", "failure"]
_OUTCOMES: tuple[Outcome, ...] = ("result", "failure")

_SLIDES = "slides.json"
_WORK = ".work"


class TurnFiles:
    """Files of one command.

    Parameters
    ----------
    root
        Folder of the files.
    slides
        Amount of work of each slide, by name.
    """

    def __init__(self, root: Path, slides: Mapping[str, float]) -> None:
        self.root, self.claims = root, root / "claims"
        self.slides = slides
        # Hashes, because a slide's name may have the maximum length already.
        self.parts = {name: part_of(name) for name in slides}

    @classmethod
    def of(cls, root: Path) -> "TurnFiles | None":
        """Return the files of a command that was started; None if they do not exist."""
        try:
            return cls(root, json.loads(read_replaced(root / _SLIDES)))
        except (FileNotFoundError, NotADirectoryError):
            return None

    @property
    def started(self) -> bool:
        """Whether the command was started, and its files were not removed since."""
        return (self.root / _SLIDES).is_file()

    def begin(self) -> None:
        """Write the list of slides, unless another process has done so."""
        if not self.started:
            write_atomic(self.root / _SLIDES, json.dumps(self.slides))

    def outcomes(self) -> dict[str, Outcome]:
        """Return the outcome of each completed slide, from one listing of the folder."""
        names = set(names_in(self.root))
        return {
            name: outcome
            for name, part in self.parts.items()
            for outcome in reversed(_OUTCOMES)  # results take precedence over failures
            if f"{part}.{outcome}" in names
        }

    def has_outcome(self, name: str) -> bool:
        """Return whether a slide has a result or failure."""
        return any(self.path(name, outcome).exists() for outcome in _OUTCOMES)

    def path(self, name: str, outcome: Outcome) -> Path:
        """Return the outcome file of a slide, or of another part such as the final step."""
        return self.root / f"{self.parts.get(name, name)}.{outcome}"

    def read(self, name: str, outcome: Outcome) -> object:
        """Return the stored JSON values, or None if there are none."""
        with suppress(FileNotFoundError):
            return json.loads(read_replaced(self.path(name, outcome)))
        return None

    def write(self, name: str, outcome: Outcome, content: object) -> None:
        """Store JSON values.

        Raises
        ------
        OutputError
            If they cannot be written.
        """
        write_atomic(self.path(name, outcome), json.dumps(content))

    def forget(self, name: str, outcome: Outcome) -> None:
        """Remove a stored outcome, if it exists."""
        self.path(name, outcome).unlink(missing_ok=True)

    def state(self, names: Iterable[str]) -> str:
        """Return a hash of the outcomes of slides, which changes if one is processed again."""
        known = hashlib.sha256()
        for name in sorted(names):
            for outcome in _OUTCOMES:
                with suppress(FileNotFoundError):
                    stat = self.path(name, outcome).stat()
                    known.update(f"{name} {outcome} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return known.hexdigest()

    def note_work(self, process: str, work: float) -> None:
        """Store how much work a process has done, to estimate the remaining time."""
        write_atomic(self.root / f"{process}{_WORK}", json.dumps(work))

    def work_of(self, process: str) -> float:
        """Return how much work a process has done; 0 if it stored nothing."""
        with suppress(FileNotFoundError):
            return float(json.loads(read_replaced(self.root / f"{process}{_WORK}")))
        return 0.0

    def leave(self, process: str) -> None:
        """Remove the stored work of a process."""
        (self.root / f"{process}{_WORK}").unlink(missing_ok=True)


def part_of(name: str) -> str:
    """Return the name of a slide's claims and files, a hash of its name."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]
