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
