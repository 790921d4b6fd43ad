"""Judging benchmarks: only what is beyond noise is said to have moved; misses give a reason."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def judge(monkeypatch):
    """The modules next to the scripts, which are run from their own folder."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import compare
    import measure
    import run

    yield compare, measure, run
    for name in ("compare", "measure", "run"):
        del sys.modules[name]


@pytest.mark.parametrize(
    ("low", "high", "is_moved"),
    [(1.9, 2.1, False), (2.15, 2.6, False), (2.5, 2.7, True), (1.2, 1.5, True), (1.2, 1.95, False)],
)
def test_only_angles_that_differ_have_moved(judge, low, high, is_moved):
    compare, measure, _ = judge
    then = {"tile: a / b": measure.Ratio(2.0, 1.8, 2.2)}
    now = {"tile: a / b": measure.Ratio((low + high) / 2, low, high)}
    found = compare.moved(now, then)
    assert bool(found) == is_moved
    if is_moved:
        assert found[0].startswith("tile: a / b: 2 -> ")


def test_what_only_one_side_measured_has_not_moved(judge):
    compare, measure, _ = judge
    assert compare.moved({"a": measure.Ratio.once(1)}, {"b": measure.Ratio.once(2)}) == []


def test_a_missed_goal_gives_its_reason(judge):
    compare, measure, _ = judge
    ratios = {"a": measure.Ratio.once(3.0), "b": measure.Ratio.once(3.0)}
    goals = {
        "a": compare.Goal("because", at_most=2.0),
        "b": compare.Goal("", at_least=2.0),
        "absent": compare.Goal("", at_least=2.0),
    }
    missed, met = compare.goals_met(ratios, goals)
    assert missed == "a: goal at most 2, MISSED with 3 (because)"
    assert met == "b: goal at least 2, reached 3"


def test_every_ratio_is_of_turns_that_alternate(judge):
    _, measure, _ = judge
    order: list[tuple[str, int]] = []

    def work(name, value):
        def done(turn):
            order.append((name, turn))
            return value

        return done

    found = measure.in_turn({"a": work("a", 2.0), "b": work("b", 4.0)}, 2, warm=1)
    assert order == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert measure.Ratio.of(found["a"], found["b"]) == measure.Ratio(0.5, 0.5, 0.5)


def test_every_benchmark_is_run_and_every_goal_is_of_one(judge):
    compare, _, run = judge
    scripts = {path.stem.removeprefix("bench_") for path in BENCHMARKS.glob("bench_*.py")}
    assert set(run.PARTS) == scripts
    for name, goal in json.loads(run.GOALS.read_text()).items():
        assert name.partition(": ")[0] in scripts
        goal = compare.Goal(**goal)
        assert (goal.at_least is None) != (goal.at_most is None)
