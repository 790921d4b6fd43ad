"""Numbers of things in messages; of one thing the noun is in the singular everywhere."""

import re
from pathlib import Path

import pytest

from wsi_seg.counts import counted, list_names

PACKAGE = Path(__file__).parents[1] / "wsi_seg"


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "slide", "0 slides"),
        (1, "slide", "1 slide"),
        (2, "more slide", "2 more slides"),
        (1, "class", "1 class"),
        (3, "class", "3 classes"),
        (2, "patch", "2 patches"),
        (3, "epoch", "3 epochs"),
        (2, "copy", "2 copies"),
        (2, "key", "2 keys"),
        (1234, "box", "1,234 boxes"),
    ],
)
def test_the_noun_agrees_with_the_number(number, noun, text):
    assert counted(number, noun) == text


def test_many_names_are_counted():
    assert list_names([]) == "none"
    assert list_names("ab") == "a, b"
    assert list_names(map(str, range(2000))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 1,990 more"


# A length in braces, and things of which there may be one.
LENGTH = re.compile(r"\{len\([^{}]*\)\} (?:[a-z-]+ )?(?:slides|objects|tiles|predictions|files)\b")


def test_messages_of_one_thing_have_no_plural():
    wrong = [
        f"{path.name}: {found}: say counted(number, noun)"
        for path in PACKAGE.rglob("*.py")
        for found in LENGTH.findall(path.read_text(encoding="utf-8"))
    ]
    assert not wrong, "\n".join(wrong)
