"""Owns shares of a command's work: which of how many this process does, and of which slides."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wsi_seg.errors import ConfigError

# What schedulers tell a task: its number, the first number, the step from one to the next (or what
# is in place of these), and how many tasks there are.
_SLURM = "SLURM_ARRAY_TASK_"
_SCHEDULERS = (
    (f"{_SLURM}ID", f"{_SLURM}MIN", f"{_SLURM}STEP", f"{_SLURM}COUNT"),
    ("JOB_COMPLETION_INDEX", "", "", "JOB_COMPLETIONS"),
    ("RANK", "", "", "WORLD_SIZE"),
)


@dataclass(frozen=True, slots=True)
class Shard:
    """One share of the work of a command that runs several times at once.

    Parameters
    ----------
    number
        Which share, from 1 on.
    count
        How many there are.

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
        if not 1 <= self.number <= self.count:
            raise ConfigError(
                f"got shard {self.number}/{self.count}; expected a number from 1 to the "
                "count, such as 1/16 for the first of 16 and 16/16 for the last"
            )

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str] | None = None) -> "Shard":
        """Read ``3/16``, ``auto``, or ``auto/16``.

        ``auto`` takes number and count from the variables of a SLURM array, of a Kubernetes
        Indexed Job (which tells no count: set ``JOB_COMPLETIONS``, or write ``auto/16``), or of
        torchrun and MPI (``RANK``, ``WORLD_SIZE``), whichever is there first.

        Raises
        ------
        ConfigError
            If it is something else, or no scheduler tells.
        """
        word, _, count = text.partition("/")
        if word == "auto":
            return _from_scheduler(os.environ if environment is None else environment, count)
        if not (word.isdecimal() and count.isdecimal()):
            raise ConfigError(
                f"got --shard {text!r}; expected NUMBER/COUNT such as 3/16, auto, or auto/COUNT"
            )
        return cls(int(word), int(count))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def pick(self, work: Mapping[str, float]) -> list[str]:
        """Names of this share, where each name's work is known.

        Every share makes the same list of all names, largest first, and cuts it where the work is
        even; so each is done once, though no share asks another one.

        Examples
        --------
        >>> Shard(1, 2).pick({"a": 1, "b": 3, "c": 2}), Shard(2, 2).pick({"a": 1, "b": 3, "c": 2})
        (['b'], ['c', 'a'])
        """
        names = sorted(work, key=lambda name: (-work[name], name))
        return [names[index] for index in self.cut([work[name] for name in names])]

    def cut(self, work: Sequence[float]) -> list[int]:
        """Pick the indices of this share in a list: those whose middle is between its bounds."""
        total, before, found = sum(work), 0.0, []
        for index, one in enumerate(work):
            middle = (before + one / 2) / total if total else (index + 0.5) / len(work)
            if min(self.count, int(middle * self.count) + 1) == self.number:
                found.append(index)
            before += one
        return found


def _from_scheduler(environment: Mapping[str, str], count: str) -> Shard:
    """Find out what a scheduler tells this task."""
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
        except ValueError as error:
            raise ConfigError(
                f"got --shard auto with {number}={environment[number]!r} and {total}={counted!r}; "
                "expected a whole number of each; write --shard NUMBER/COUNT"
            ) from error
    raise ConfigError(
        "got --shard auto, but found none of SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX and RANK; "
        "write --shard NUMBER/COUNT, such as 3/16"
    )
