import json

import pytest

from wsi_seg.classes import ClassTable
from wsi_seg.errors import ConfigError


def test_ids_follow_the_order_and_json_round_trips():
    table = ClassTable.named(["gland", "vessel"], ["#112233", None])
    assert next((e.id, e.name, e.colour) for e in table) == (1, "gland", "#112233")
    assert table.id_of("vessel") == 2
    assert ClassTable.from_json(table.to_json()) == table
    assert table.entries[0].rgb == (0x11, 0x22, 0x33)


@pytest.mark.parametrize(
    ("names", "colours", "said"),
    [(["a", "a"], [], "once"), ([""], [], "empty"), (["a"], ["red"], "#rrggbb")],
)
def test_bad_tables_are_refused(names, colours, said):
    with pytest.raises(ConfigError, match=said):
        ClassTable.named(names, colours)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"'nerve'.*gland, vessel"):
        ClassTable.named(["gland", "vessel"]).id_of("nerve")


def test_names_may_be_merged_to_one_class():
    drawn = ClassTable.named(["gl", "gn", "vessel", "nerve"])
    wanted = ClassTable.named(["vessel", "glomerulus"], merged=[(), ("gn", "gl")])
    table = wanted.recoding(drawn)
    assert table[:5].tolist() == [0, 2, 2, 1, 0]
    assert table[255] == 255
    assert wanted.absent_from(drawn) == ()
    assert ClassTable.from_json(wanted.to_json()) == wanted
    # A label that has the merged class already will do, too; one that lacks a part will not.
    assert wanted.absent_from(ClassTable.named(["glomerulus", "vessel"])) == ()
    assert wanted.absent_from(ClassTable.named(["gn", "vessel"])) == ("gl",)
    with pytest.raises(ConfigError, match="each name in one class"):
        ClassTable.named(["a", "b"], merged=[("x",), ("x", "y")])


@pytest.mark.parametrize("mode", [None, "exclusive", "overlapping"])
def test_a_mode_is_kept_and_tables_without_one_are_what_they_were(mode):
    table = ClassTable.named(["gland", "vessel"], merged=[("a", "b"), ()], mode=mode)
    assert ClassTable.from_json(json.loads(json.dumps(table.to_json()))) == table
    assert isinstance(table.to_json(), list) == (mode is None)
    assert table.outputs == (3 if mode == "exclusive" else 2)
    assert table.is_exclusive == (mode == "exclusive")


def test_one_class_has_nothing_to_overlap():
    alone = ClassTable.named(["gland"], mode="overlapping")
    assert alone == ClassTable.named(["gland"])
    assert ClassTable.named(["gland"], mode="exclusive").outputs == 2
