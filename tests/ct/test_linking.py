"""Objects of volumes, compared with components of the whole array."""

import cc3d
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsi_seg.ct.linking import link_slices, slices_by_volume
from wsi_seg.postprocess.strips import Strip


def linked(ids, probability, height=4, z=0):
    return link_slices(
        (z + n, [Strip(y, plane[y : y + height], shown[y : y + height])
                 for y in range(0, len(plane), height)])
        for n, (plane, shown) in enumerate(zip(ids, probability, strict=True))
    )  # fmt: skip


@given(
    hnp.arrays(np.uint8, (4, 9, 8), elements=st.sampled_from([0, 0, 0, 1, 2])),
    st.integers(1, 9),
    st.integers(0, 2**32 - 1),
)
def test_objects_are_the_components_of_the_volume(ids, height, seed):
    probability = np.random.default_rng(seed).integers(0, 256, ids.shape, dtype=np.uint8)
    found = linked(ids, probability, height)
    whole = cc3d.connected_components(ids, connectivity=6)
    expected = []
    for number in range(1, whole.max() + 1):
        z, y, x = np.nonzero(whole == number)
        here = probability[whole == number]
        expected.append(
            (int(ids[whole == number][0]), len(z), x.mean() + 0.5, y.mean() + 0.5, z.mean(),
             len(np.unique(z)), here.mean() / 255, here.max() / 255)
        )  # fmt: skip
    ours = zip(found.value, found.px, *found.centre.T, found.slices, found.mean_probability,
               found.max_probability, strict=True)  # fmt: skip
    # Rounded, because places are sums in another order.
    assert sorted(np.round(row, 6).tolist() for row in ours) == sorted(
        np.round(row, 6).tolist() for row in expected
    )


def test_a_missing_slice_parts_objects():
    plane = np.ones((3, 3), np.uint8)
    joined = link_slices((z, [Strip(0, plane, plane)]) for z in (0, 1, 3))
    assert len(joined) == 2


def test_slices_are_recognised_by_their_names():
    assert slices_by_volume(["b_z0001", "a_z0010", "a_z0002", "plain"]) == {
        "a": [(2, "a_z0002"), (10, "a_z0010")],
        "b": [(1, "b_z0001")],
    }
