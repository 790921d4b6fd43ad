from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import label, perimeter_crofton, regionprops

from wsi_seg.classes import ClassTable
from wsi_seg.errors import OutputError, StoreError
from wsi_seg.postprocess.objects import ObjectTable, Scale, measure
from wsi_seg.postprocess.strips import Strip
from wsi_seg.postprocess.table import read_table, write_table

CLASSES = ClassTable.named(["a", "b"])


def source(ids, probability, height):
    def strips():
        for y in range(0, len(ids), height):
            yield Strip(y, ids[y : y + height], probability[y : y + height])

    return strips


def assert_same(a, b):
    for field in fields(ObjectTable):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))


@given(
    hnp.arrays(
        np.uint8,
        st.tuples(st.integers(1, 20), st.integers(1, 20)),
        elements=st.sampled_from([0, 0, 1, 1, 2]),
    ),
    st.integers(1, 21),
)
def test_figures_are_those_of_scikit_image_whatever_the_strips(ids, height):
    probability = (np.arange(ids.size, dtype=np.int64) * 37 % 256).astype(np.uint8)
    probability = probability.reshape(ids.shape)
    table = measure(source(ids, probability, height), CLASSES, Scale(4.0, 2.0))
    labelled = np.zeros(ids.shape, dtype=np.int64)
    for value in (1, 2):
        part = label(ids == value, connectivity=1)
        labelled[part > 0] = part[part > 0] + labelled.max()
    regions = regionprops(labelled, intensity_image=probability.astype(np.float64))
    regions.sort(key=lambda r: int(np.flatnonzero(labelled.ravel() == r.label)[0]))
    assert len(table) == len(regions)
    for n, region in enumerate(regions):
        assert table.id[n] == n + 1
        assert table.class_name[n] == CLASSES.names[int(ids[tuple(region.coords[0])]) - 1]
        assert table.area[n] == region.area * 4
        np.testing.assert_allclose(
            (table.y[n], table.x[n]), (np.array(region.centroid) + 0.5) * 4, atol=1e-6
        )
        box = (table.top[n], table.left[n], table.bottom[n], table.right[n])
        assert box == tuple(4.0 * side for side in region.bbox)
        np.testing.assert_allclose(table.eccentricity[n], region.eccentricity, atol=1e-6)
        crofton = perimeter_crofton(np.pad(region.image, 1), directions=2)
        np.testing.assert_allclose(table.perimeter[n], crofton * 2, atol=1e-6)
        np.testing.assert_allclose(table.mean_probability[n] * 255, region.intensity_mean)
        np.testing.assert_allclose(table.max_probability[n] * 255, region.intensity_max)


def test_a_disc_has_about_its_perimeter_and_no_eccentricity():
    y, x = np.mgrid[:401, :401] - 200
    ids = (np.hypot(y, x) < 150).astype(np.uint8)
    table = measure(source(ids, ids * 255, 100), CLASSES, Scale(1.0, 0.5))
    assert table.perimeter[0] == pytest.approx(2 * np.pi * 75, rel=0.01)
    assert table.eccentricity[0] < 0.01
    assert table.area[0] == ids.sum() / 4


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("has_mpp", [True, False])
def test_tables_come_back_as_they_were(tmp_path, suffix, has_mpp):
    ids = (np.random.default_rng(1).random((50, 40)) > 0.6).astype(np.uint8)
    table = measure(source(ids, ids * 99, 9), CLASSES, Scale(2.0, 1.0))
    path = tmp_path / "deep" / f"t.{suffix}"
    write_table(path, table, has_mpp=has_mpp)
    assert_same(read_table(path), table)
    nothing = measure(source(ids * 0, ids, 9), CLASSES, Scale(2.0, 1.0))
    write_table(path, nothing, has_mpp=has_mpp)
    assert_same(read_table(path), nothing)
    if suffix == "csv":
        assert ("area_um2" if has_mpp else "area_px2") in path.read_text()


def test_another_table_and_another_suffix_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    with pytest.raises(StoreError, match="not an object table"):
        read_table(tmp_path / "a.csv")
    with pytest.raises(StoreError, match="not an object table"):
        read_table(tmp_path / "none.parquet")
    table = measure(
        source(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), 2), CLASSES, Scale(1, None)
    )
    with pytest.raises(OutputError, match="parquet"):
        write_table(tmp_path / "t.xlsx", replace(table), has_mpp=True)
