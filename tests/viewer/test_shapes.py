"""Edited shapes have the area that they should, whatever the stroke; holes are kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import Polygon, box

from wsi_seg.viewer.shapes import Edit, edited

SQUARE = [(0.0, 0.0), (100.0, 0.0), (100.0, 100.0), (0.0, 100.0)]
HOLE = [(40.0, 40.0), (60.0, 40.0), (60.0, 60.0), (40.0, 60.0)]
FAR = [(500.0, 0.0), (600.0, 0.0), (600.0, 100.0), (500.0, 100.0)]


def corners(x, y, x_end, y_end):
    return [(x, y), (x_end, y), (x_end, y_end), (x, y_end)]


def area(shapes):
    return sum(Polygon(rings[0], rings[1:]).area for rings in shapes)


def edit(operation, shapes, stroke=()):
    return edited(Edit(operation=operation, shapes=shapes, stroke=list(stroke)))


def test_erasing_the_middle_leaves_a_hole_which_is_filled_again():
    ((holed,), (far,)) = edit("erase", [[SQUARE], [FAR]], HOLE)
    assert len(holed) == 2
    assert area([holed]) == 100**2 - 20**2
    assert far == [FAR]
    ((filled,),) = edit("fill", [holed])
    assert area([filled]) == 100**2


def test_splitting_keeps_the_area_and_the_hole():
    ((*pieces,), (far,)) = edit("split", [[SQUARE, HOLE], [FAR]], [(20, -5), (20, 105)])
    assert len(pieces) == 2
    assert area(pieces) == pytest.approx(100**2 - 20**2)
    assert sorted(len(rings) for rings in pieces) == [1, 2]
    assert far == [FAR]


def test_a_cut_that_ends_inside_changes_nothing():
    ((piece,),) = edit("split", [[SQUARE]], [(20, -5), (20, 50)])
    assert area([piece]) == 100**2


def test_merging_joins_what_the_stroke_touches_alone():
    other = corners(150.0, 0.0, 250.0, 100.0)
    (joined, gone, far) = edit("merge", [[SQUARE], [other], [FAR]], corners(90, 10, 160, 90))
    assert area(joined) == 2 * 100**2 + 50 * 80
    assert len(joined) == 1
    assert gone == []
    assert far == [[FAR]]


@given(st.tuples(*[st.integers(-50, 150)] * 4), st.sampled_from(["merge", "erase"]))
def test_areas_add_up(sides, operation):
    left, right = sorted(sides[:2])
    top, bottom = sorted(sides[2:])
    stroke = corners(left, top, right + 1, bottom + 1)
    ((*after,),) = edit(operation, [[SQUARE, HOLE]], stroke)
    before, drawn = Polygon(SQUARE, [HOLE]), box(*stroke[0], *stroke[2])
    if operation == "erase":
        wanted = before.difference(drawn).area
    else:
        wanted = before.union(drawn).area if before.intersects(drawn) else before.area
    # Pieces of fewer than 4 px2 are left out, at most three of them.
    assert wanted - 12 <= area(after) <= wanted + 0.01
