"""A part of a slide is predicted as the whole slide is there, and nothing outside of its tiles."""

import json
from dataclasses import replace

import numpy as np
import pytest
import shapely
from distributed import Client, LocalCluster

from tests.inference.test_shards import MODEL, load
from wsi_seg.classes import ClassTable
from wsi_seg.errors import BatchError
from wsi_seg.inference.distribute import DaskExecutor
from wsi_seg.inference.executor import Executor, SerialExecutor
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer_with
from wsi_seg.inference.run_plan import plan_inference
from wsi_seg.masks.inside import Inside
from wsi_seg.progress import Silent
from wsi_seg.shard import Shard
from wsi_seg.store import LabelInfo, open_collection, open_predictions
from wsi_seg.testing.stores import digests, make_store, write_image

OPTIONS = InferOptions(batch=4, strip_px=512, precision="fp32", device="cpu")
HEIGHT, WIDTH = 1300, 420


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inside") / "s.zarr"
    path = make_store(folder, "a", HEIGHT, WIDTH)
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[600:700, 100:180] = 2
    info = LabelInfo(classes=ClassTable.named(["stroma", "tumour"]))
    write_image(path / "labels/annotations", ids, info.to_json())
    return list(open_collection(folder))


def run(stores, out, inside=None, shard=None, *, overlap=0.5, client=None):
    options = replace(OPTIONS, inside=inside, shard=shard, overlap=overlap)
    executor: Executor = SerialExecutor(MODEL, options, load=load, progress=Silent())
    if client is not None:
        executor = DaskExecutor(client, MODEL, options, load=load)
    return infer_with(MODEL, stores, out, options, executor=executor, progress=Silent())


def pixels(out):
    store = open_predictions(out)["a"]
    return store.probabilities.read(store.pyramid.extent.region())


def ring(path):
    area = shapely.box(50, 900, 250, 1200).difference(shapely.box(100, 950, 200, 1100))
    path.write_text(json.dumps({
        "type": "Feature", "geometry": shapely.geometry.mapping(area), "properties": {},
    }))  # fmt: skip
    return str(path)


@pytest.mark.parametrize("part", ["box", "polygons", "class"])
def test_inside_are_the_bytes_of_the_whole_slide_and_outside_nothing(stores, tmp_path, part):
    inside = {
        "box": lambda: Inside.parse(bbox="100,600,80,100"),
        "polygons": lambda: Inside.parse(ring(tmp_path / "ring.geojson")),
        "class": lambda: Inside.parse("tumour"),
    }[part]()
    whole, some = run(stores, tmp_path / "whole"), run(stores, tmp_path / "some", inside)
    expected, found = pixels(tmp_path / "whole"), pixels(tmp_path / "some")
    extent = stores[0].pyramid.extent
    there = inside.rows(stores[0], extent, extent)
    assert there.any()
    assert np.array_equal(found[there], expected[there])
    (slide,) = plan_inference(stores, MODEL, replace(OPTIONS, inside=inside)).slides
    plan = slide[0]
    assert some.tiles == plan.keep.sum() < whole.tiles / 3
    covered = np.zeros(there.shape, bool)
    for row, column in np.argwhere(plan.keep):
        y, x = plan.ys[row], plan.xs[column]
        covered[y : y + plan.tile_px, x : x + plan.tile_px] = True
    assert not found[~covered].any()
    assert expected[~covered].any()
    for number in (1, 2):
        run(stores, tmp_path / "shared", inside, Shard(number, 2))
    assert digests(tmp_path / "shared") == digests(tmp_path / "some")


@pytest.fixture(scope="module")
def client():
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
    ) as cluster, Client(cluster) as client:  # fmt: skip
        yield client


@pytest.mark.parametrize("overlap", [0.5, "adaptive"])
@pytest.mark.parametrize("part", ["box", "polygons"])
def test_one_process_dask_and_shards_give_the_same_bytes_of_a_part(
    stores, client, tmp_path, part, overlap
):
    inside = Inside.parse(bbox="100,300,80,700")  # of two strips
    if part == "polygons":
        inside = Inside.parse(ring(tmp_path / "ring.geojson"))
    serial = run(stores, tmp_path / "serial", inside, overlap=overlap)
    assert 0 < serial.tiles < run(stores, tmp_path / "whole", overlap=overlap).tiles
    run(stores, tmp_path / "dask", inside, overlap=overlap, client=client)
    assert digests(tmp_path / "dask") == digests(tmp_path / "serial")
    if overlap == "adaptive":  # not for shards
        return
    run(stores, tmp_path / "shards", inside, Shard(2, 3))
    run(stores, tmp_path / "shards", inside, Shard(1, 3), client=client)
    run(stores, tmp_path / "shards", inside, Shard(3, 3))
    assert digests(tmp_path / "shards") == digests(tmp_path / "serial")


def test_the_plan_and_the_prediction_say_so(stores, tmp_path):
    inside = Inside.parse(bbox="0,0,64,64")
    plan = plan_inference(stores, MODEL, replace(OPTIONS, inside=inside))
    assert "note: only what is inside box 0,0,64,64 was predicted" in plan.lines()
    assert plan.tiles == 4  # half of a tile overlaps each neighbour
    run(stores, tmp_path / "p", inside)
    about = open_predictions(tmp_path / "p")["a"].prediction
    assert about.settings["inside"] == "box 0,0,64,64"
    assert "only what is inside box 0,0,64,64 was predicted" in about.notes


def test_a_run_with_another_part_is_refused(stores, tmp_path):
    run(stores, tmp_path / "p", Inside.parse(bbox="0,0,64,64"))
    for other, said in ((Inside.parse("tumour"), "class tumour"), (None, "None")):
        report = run_refused(stores, tmp_path / "p", other)
        assert "inside was 'box 0,0,64,64' and is now" in report
        assert said in report
    assert run(stores, tmp_path / "p", Inside.parse(bbox="0,0,64,64")).tiles == 0


def run_refused(stores, out, inside):
    with pytest.raises(BatchError) as caught:
        run(stores, out, inside)
    return str(caught.value.failures)


def test_slides_without_the_class_are_named(stores, tmp_path):
    with pytest.raises(BatchError) as caught:
        run(stores, tmp_path / "p", Inside.parse("nerve"))
    assert "got class 'nerve'" in caught.value.failures["a"]
