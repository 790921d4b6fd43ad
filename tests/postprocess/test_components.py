import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from wsi_seg.postprocess.components import ConnectedComponents

MAPS = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    elements=st.sampled_from([0, 1, 1, 2]),
)


def painted(ids, height):
    components = ConnectedComponents()
    strips = [components.add(y, ids[y : y + height]) for y in range(0, len(ids), height)]
    objects = components.objects()
    out = np.zeros(ids.size, dtype=np.int64)
    for runs in strips:
        for begin, end, label in zip(runs.begin, runs.end, runs.label, strict=True):
            out[begin:end] = objects[label] + 1
    return out.reshape(ids.shape)


@given(MAPS, st.integers(1, 25))
def test_objects_are_those_of_scipy_numbered_by_first_pixel_whatever_the_strips(ids, height):
    found = painted(ids, height)
    expected = np.zeros(ids.shape, dtype=np.int64)
    for value in (1, 2):
        labelled, count = ndimage.label(ids == value)
        expected[labelled > 0] = labelled[labelled > 0] + expected.max()
        assert count == len(np.unique(found[ids == value]))
    # The same partition: each object of one is one object of the other, numbered in raster order.
    pairs = np.unique(np.stack([found.ravel(), expected.ravel()], axis=1), axis=0)
    assert len(pairs) == len(np.unique(found)) == len(np.unique(expected))
    first = [np.flatnonzero(found.ravel() == n)[0] for n in range(1, found.max() + 1)]
    assert first == sorted(first)


def test_ids_from_strips_of_256_and_of_4096_rows_are_the_same():
    random = np.random.default_rng(3)
    ids = (ndimage.gaussian_filter(random.random((4200, 90)), 3) > 0.5).astype(np.uint8)
    np.testing.assert_array_equal(painted(ids, 256), painted(ids, 4096))
