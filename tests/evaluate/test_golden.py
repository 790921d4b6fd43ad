"""Nobody changes label maps and scores without seeing it."""

import json

from tests.evaluate.golden import FILE, current


def test_label_map_and_scores_are_those_on_file():
    assert current() == json.loads(FILE.read_text())
