"""techniques.md names tests that exist, or gives a reason."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "pipelines/techniques.md").read_text(encoding="utf-8")
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if re.match(r"\| H?\d", line)]


def test_every_capability_and_every_check_has_a_row():
    numbers = [row[0] for row in ROWS]
    assert numbers == [*map(str, range(1, 90)), *(f"H{n}" for n in range(1, 33))]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_row_names_a_test_or_a_reason(row):
    _, _, mark, last = row
    named = re.findall(r"[\w/]+\.py(?:::\w+)?", last)
    assert mark in {"T", "X"}
    assert mark == "T" or not row[0].startswith("H")
    assert named or mark == "X"
    for one in named:
        file, _, name = one.partition("::")
        text = (TESTS / file).read_text(encoding="utf-8")
        assert f"\ndef {name or 'test'}" in text, one
    if mark != "T":
        assert len(re.sub(r"[\w/]+\.py(?:::\w+)?", "", last)) > 20, "a reason"
