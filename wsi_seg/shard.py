"""Owns sharding the work of a command over processes: ``--shard NUMBER/COUNT``."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wsi_seg.errors import ConfigError

# Variables of schedulers: number of the task, first number, step between numbers, number of tasks.
_SLURM = "SLURM_ARRAY_TASK_"
_SCHEDULERS = (
    (f"{_SLURM}ID", f"{_SLURM}MIN", f"{_SLURM}STEP", f"{_SLURM}COUNT"),
    ("JOB_COMPLETION_INDEX", "", "", "JOB_COMPLETIONS"),
    ("RANK", "", "", "WORLD_SIZE"),
)

# Highest count: far more processes than run anywhere, and exact in floating point.
_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Shard:
    """One share of the work of a command that runs in several processes.

    Parameters
    ----------
    number
        Number of the share, from 1.
    count
        Number of shares.

    Examples
    --------
    >>> Shard.parse("3/16")
    Shard(number=3, count=16)
    >>> Shard.parse("auto", {"RANK": "0", "WORLD_SIZE": "4"})
    Shard(number=1, count=4)
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count <= _MOST:
            raise ConfigError(
                f"got shard {self.number}/{self.count}; expected a number from 1 to the "
                "count, such as 1/16 for the first of 16 and 16/16 for the last, and a count of at "
                f"most {_MOST}"
            )

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str] | None = None) -> "Shard":
        """Parse ``3/16``, ``auto``, or ``auto/16``.

        ``auto`` reads number and count from the environment variables of a SLURM array, of a
        Kubernetes Indexed Job (which has no count: set ``JOB_COMPLETIONS``, or write ``auto/16``),
        or of torchrun and MPI (``RANK``, ``WORLD_SIZE``), whichever is set first.

        Raises
        ------
        ConfigError
            If the text is not valid, or no scheduler sets its variables.
        """
        word, _, count = text.partition("/")
        if word == "auto":
            return _from_scheduler(os.environ if environment is None else environment, count)
        if not re.fullmatch(r"\d{1,9}/\d{1,9}", text):
            raise ConfigError(
                f"got --shard {text!r}; expected NUMBER/COUNT such as 3/16, auto, or auto/COUNT"
            )
        return cls(int(word), int(count))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def pick(self, work: Mapping[str, float]) -> list[str]:
        """Return the names of this share, given the work of each name.

        All shares sort the names in the same order, largest first, and split the list into parts of
        equal work; so each name is done once, without communication.

        Examples
        --------
        >>> Shard(1, 2).pick({"a": 1, "b": 3, "c": 2}), Shard(2, 2).pick({"a": 1, "b": 3, "c": 2})
        (['b'], ['c', 'a'])
        """
        names = sorted(work, key=lambda name: (-work[name], name))
        return [names[index] for index in self.cut([work[name] for name in names])]

    def cut(self, work: Sequence[float]) -> list[int]:
        """Return the indices of this share in a list: those whose midpoint of work is within it."""
        total, before, found = sum(work), 0.0, []
        for index, one in enumerate(work):
            middle = (before + one / 2) / total if total else (index + 0.5) / len(work)
            if min(self.count, int(middle * self.count) + 1) == self.number:
                found.append(index)
            before += one
        return found


def _from_scheduler(environment: Mapping[str, str], count: str) -> Shard:
    """Read number and count from the variables of a scheduler."""
    for number, first, step, total in _SCHEDULERS:
        if number not in environment:
            continue
        counted = count or environment.get(total, "")
        try:
            index = int(environment[number]) - int(environment.get(first, "0"))
            index //= int(environment.get(step, "1"))
            return Shard(index + 1, int(counted))
        except ConfigError as error:
            raise ConfigError(
                f"got --shard auto with {number}={environment[number]} and {total}={counted}, "
                f"which would be share {index + 1} of {counted}; expected tasks without gaps; "
                "write --shard NUMBER/COUNT, counted from 1, such as 3/16"
            ) from error
        except (ValueError, ZeroDivisionError) as error:
            given = {
                name: environment[name] for name in (number, first, step) if name in environment
            }
            found = [f"{name}={value!r}" for name, value in (given | {total: counted}).items()]
            raise ConfigError(
                f"got --shard auto with {' and '.join(found)}; expected a whole number of each, "
                "and steps of at least 1; write --shard NUMBER/COUNT"
            ) from error
    raise ConfigError(
        "got --shard auto without SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX or RANK; expected one "
        "of these variables; or write --shard NUMBER/COUNT, such as 3/16"
    )
