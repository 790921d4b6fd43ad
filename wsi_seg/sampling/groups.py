"""Owns grouping slides that no split may separate: of a volume or a patient, and duplicates."""

import csv
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from wsi_seg.config.data import DataConfig
from wsi_seg.counts import counted
from wsi_seg.errors import ConfigError
from wsi_seg.reading.slices import case_of
from wsi_seg.sampling.dedup import connected, read_duplicates


def group_slides(data: DataConfig, names: Sequence[str]) -> dict[str, str]:
    """Return the group of each slide that shares a group with others.

    Slides are linked by their volume, the recipe's table, its pattern and the duplicates that
    ``wsi-seg dedup`` found; groups are the connected components of all links.

    Raises
    ------
    ConfigError
        If the table cannot be read or misses a slide, or the pattern does not match a name.
    StoreError
        If the file of duplicates is damaged.
    """
    links: list[Sequence[str]] = [*_linked(names, [case_of(name) for name in names])]
    if data.groups is not None:
        links += _by_table(data.groups, names)
    if data.group_pattern is not None:
        links += _by_pattern(data.group_pattern, names)
    for store in data.stores:
        links += read_duplicates(store)
    known = set(names)
    groups = connected([name for name in link if name in known] for link in links)
    return {name: group[0] for group in groups for name in group}


def _by_table(path: Path, names: Sequence[str]) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"data.groups: cannot read {path}: {error}") from error
    if not rows or [column.strip().lower() for column in rows[0][:2]] != ["slide", "group"]:
        raise ConfigError(
            f"data.groups: {path} starts with {rows[0] if rows else 'nothing'}; expected the "
            "columns slide, group"
        )
    group_of = {row[0].strip(): row[1].strip() for row in rows[1:] if len(row) > 1}
    missing = [name for name in names if name not in group_of]
    if missing:
        raise ConfigError(
            f"data.groups: {path} has no row for {', '.join(missing[:5])} "
            f"({counted(len(missing), 'slide')} in total); expected every slide of the recipe"
        )
    return _linked(names, [group_of[name] for name in names])


def _by_pattern(pattern: str, names: Sequence[str]) -> list[list[str]]:
    found = []
    for name in names:
        match = re.match(pattern, name)
        if match is None:
            raise ConfigError(
                f"data.group_pattern {pattern!r} does not match slide {name!r}; expected it to "
                "match every slide's name"
            )
        found.append(match[1])
    return _linked(names, found)


def _linked(names: Sequence[str], groups: Sequence[str]) -> list[list[str]]:
    members: dict[str, list[str]] = defaultdict(list)
    for name, group in zip(names, groups, strict=True):
        members[group].append(name)
    return list(members.values())
