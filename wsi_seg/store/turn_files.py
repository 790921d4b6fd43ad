"""Owns the files of a command that processes share: its slides, and what became of each of them.

All are in one folder, where one list of names tells what is left however many slides there are.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

from wsi_seg.files.atomic import write_atomic
from wsi_seg.files.shared import names_in, read_replaced

# The result of a slide, as JSON; or why it failed.
Outcome = Literal["result", "failure"]
_OUTCOMES: tuple[Outcome, ...] = ("result", "failure")

_SLIDES = "slides.json"
_WORK = ".work"


class TurnFiles:
    """Files of one command.

    Parameters
    ----------
    root
        Its folder.
    slides
        How much work each slide is, by name.
    """

    def __init__(self, root: Path, slides: Mapping[str, float]) -> None:
        self.root, self.claims = root, root / "claims"
        self.slides = slides
        # A slide's name may be as long as a file system takes.
        self.parts = {name: part_of(name) for name in slides}

    @classmethod
    def of(cls, root: Path) -> "TurnFiles | None":
        """Files of a command that was begun; None where there are none, or no more."""
        try:
            return cls(root, json.loads(read_replaced(root / _SLIDES)))
        except (FileNotFoundError, NotADirectoryError):
            return None

    @property
    def are_kept(self) -> bool:
        """Whether the list of slides is there."""
        return (self.root / _SLIDES).is_file()

    def begin(self) -> None:
        """Keep the list of slides, if no other process has."""
        if not self.are_kept:
            write_atomic(self.root / _SLIDES, json.dumps(self.slides))

    def outcomes(self) -> dict[str, Outcome]:
        """Tell which slides have a result or failed; the folder is listed once."""
        names = set(names_in(self.root))
        return {
            name: outcome
            for name, part in self.parts.items()
            for outcome in reversed(_OUTCOMES)  # a result counts where there are both
            if f"{part}.{outcome}" in names
        }

    def has_outcome(self, name: str) -> bool:
        """Whether a slide has a result or failed."""
        return any(self.path(name, outcome).exists() for outcome in _OUTCOMES)

    def path(self, name: str, outcome: Outcome) -> Path:
        """File of a slide, or of what has the name of none."""
        return self.root / f"{self.parts.get(name, name)}.{outcome}"

    def read(self, name: str, outcome: Outcome) -> object:
        """Read what was kept; None where nothing was."""
        with suppress(FileNotFoundError):
            return json.loads(read_replaced(self.path(name, outcome)))
        return None

    def write(self, name: str, outcome: Outcome, content: object) -> None:
        """Keep JSON values.

        Raises
        ------
        OutputError
            If they cannot be written.
        """
        write_atomic(self.path(name, outcome), json.dumps(content))

    def forget(self, name: str, outcome: Outcome) -> None:
        """Remove what was kept, if it was."""
        self.path(name, outcome).unlink(missing_ok=True)

    def state(self, names: Iterable[str]) -> str:
        """Name what became of slides: another name where one was done again."""
        known = hashlib.sha256()
        for name in sorted(names):
            for outcome in _OUTCOMES:
                with suppress(FileNotFoundError):
                    stat = self.path(name, outcome).stat()
                    known.update(f"{name} {outcome} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return known.hexdigest()

    def note_work(self, process: str, work: float) -> None:
        """Keep how much a process has done, for whoever asks how long the rest takes."""
        write_atomic(self.root / f"{process}{_WORK}", json.dumps(work))

    def work_of(self, process: str) -> float:
        """How much a process has done; 0 where it has not said."""
        with suppress(FileNotFoundError):
            return float(json.loads(read_replaced(self.root / f"{process}{_WORK}")))
        return 0.0

    def leave(self, process: str) -> None:
        """Remove what a process kept about itself."""
        (self.root / f"{process}{_WORK}").unlink(missing_ok=True)


def part_of(name: str) -> str:
    """Name of a slide in claims and files."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]
