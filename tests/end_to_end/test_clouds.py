"""The whole chain on object stores of three kinds: the bytes of folders, whatever fails or ends."""

import json
import random
import shutil
import threading

import pytest
import shapely

from tests.commands import run as command
from tests.commands import run_json
from tests.forks import begin_verb
from tests.inference.test_shards import run
from tests.makers.coordinates import write_coordinate_tiff
from tests.object_store import fetched, in_bucket, object_store, sent
from wsi_seg.geometry import Extent
from wsi_seg.inference.status import read_status
from wsi_seg.shard import Shard
from wsi_seg.store import open_collection, update_names
from wsi_seg.testing.stores import digests, make_store

EXTENT = Extent(height=700, width=300)


@pytest.fixture(params=["az", "gs"])  # s3 has tests of its own in the rooms
def scheme(request):
    return request.param


@pytest.fixture
def gate(scheme):
    with object_store(scheme) as gate:
        yield gate


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """Folder with two slides, what commands make of them, and predictions of other slides."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "in").mkdir()
    for name in ("a", "b c+%"):
        write_coordinate_tiff(folder / f"in/{name}.tif", extents=[EXTENT], codec="jpeg", tile_px=64)
    run_json("tile", folder / "in", "--out", folder / "s.zarr")
    run_json("infer", folder / "s.zarr", "--out", folder / "p.zarr", "--overlap", "0")
    make_store(folder / "made.zarr", "tall", 1700, 70)
    make_store(folder / "made.zarr", "two", 64, 90)
    update_names(folder / "made.zarr")
    run(list(open_collection(folder / "made.zarr")), folder / "calm.zarr")
    return folder


def test_commands_give_the_bytes_of_folders(local, scheme, gate, tmp_path):
    root = in_bucket("", scheme)
    sent(local / "in", root / "in")
    slides, found = root / "s.zarr", root / "p.zarr"
    run_json("tile", root / "in", "--out", slides, "--stage", tmp_path / "stage")
    for number in "12":
        run_json("infer", slides, "--out", found, "--overlap", "0", "--shard", f"{number}/2")
    assert run_json("status", found)["complete"]
    assert fetched(slides, tmp_path / "s") == digests(local / "s.zarr")
    assert fetched(found, tmp_path / "p") == digests(local / "p.zarr")
    words = ("--slides", slides, "--geojson", tmp_path / "found")
    assert command("export", found, *words).exit_code == 0
    assert (tmp_path / "found" / "a.geojson").is_file()
    assert command("verify", slides).exit_code == 0


@pytest.mark.parametrize("faults", [(), ("503", "lost", "unanswered")])
def test_kills_and_faults_give_the_bytes_of_a_folder(faults, local, scheme, gate, tmp_path):
    chance, out = random.Random(scheme), in_bucket("p.zarr", scheme)
    slides = list(open_collection(sent(local / "made.zarr", in_bucket("s.zarr", scheme))))

    def rule(method, path):
        fault = chance.choice(faults)
        # A store is trusted with what it reads and deletes; Azure is asked for that by POST.
        if method != "PUT" and fault != "503":
            return None
        again = sum(path == other for *_, other in gate.faults) > 1
        return fault if chance.random() < 1 / 7 and not again else None

    if faults:
        gate.rule = rule
    for number in (1, 2):
        run(slides, out, Shard(number, 2), stop=2)
    assert run(slides, out) is not None
    gate.rule = lambda _method, _path: None
    assert {kind for kind, *_ in gate.faults} == set(faults)
    assert fetched(out, tmp_path) == digests(local / "calm.zarr")
    assert read_status(out).is_complete
    assert not [path for path in out.sizes() if "partial" in str(path)]


def _code(process):
    process.join(200)
    return process.exitcode


def _one_is_killed(words, gate, part):
    """Two processes share a command; the first one to write what has this in its name is killed."""
    written = threading.Event()

    def rule(method, path):
        if method == "PUT" and part in path:
            written.set()

    gate.rule = rule
    first = begin_verb(*words, "--shard", "1/2")
    assert written.wait(200)
    second = begin_verb(*words, "--shard", "2/2")
    first.kill()
    assert [_code(first), _code(second)][1] == 0
    gate.rule = lambda _method, _path: None
    assert _code(begin_verb(*words, "--shard", "1/2")) == 0


def _without_turns(found):
    return {name: one for name, one in found.items() if not name.startswith(".wsi_seg/turns/")}


def test_of_two_processes_that_tile_into_a_bucket_one_is_killed(local, tmp_path):
    with object_store() as gate:
        root = in_bucket()
        sent(local / "in", root / "in")
        words = ("tile", root / "in", "--out", root / "s.zarr")
        _one_is_killed(words, gate, "/partial/")
        found = fetched(root / "s.zarr", tmp_path / "s")
        assert _without_turns(found) == digests(local / "s.zarr")


def test_of_two_processes_that_export_from_a_bucket_one_is_killed(local, tmp_path):
    with object_store() as gate:
        found = sent(local / "p.zarr", in_bucket("p.zarr"))
        slides = sent(local / "s.zarr", in_bucket("s.zarr"))
        words = ("export", found, "--slides", slides, "--geojson")
        _one_is_killed([*words, tmp_path / "shared"], gate, "/turns/")
        assert command("export", local / "p.zarr", "--geojson", tmp_path / "one").exit_code == 0
        names = sorted(path.name for path in (tmp_path / "one").glob("*.geojson"))
        assert len(names) == 2
        for name in names:
            same = (tmp_path / "one" / name).read_bytes()
            assert (tmp_path / "shared" / name).read_bytes() == same


@pytest.fixture(scope="module")
def annotated(local):
    """Annotations of the slides, and a copy of the slides with them as a label."""
    (local / "polygons").mkdir()
    for number, name in enumerate(("a", "b c+%")):
        shape = shapely.box(20, 30, 120 + number, 300)
        feature = {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(shape),
            "properties": {"classification": {"name": "nucleus"}},
        }
        (local / "polygons" / f"{name}.geojson").write_text(
            json.dumps({"type": "FeatureCollection", "features": [feature]})
        )
    shutil.copytree(local / "s.zarr", local / "annotated.zarr")
    run_json("annotate", local / "annotated.zarr", local / "polygons", "--name", "hand")
    return local


def test_of_two_processes_that_annotate_a_bucket_one_is_killed(annotated, tmp_path):
    with object_store() as gate:
        slides = sent(annotated / "s.zarr", in_bucket("s.zarr"))
        words = ("annotate", slides, annotated / "polygons", "--name", "hand")
        _one_is_killed(words, gate, "/partial/hand/")
        found = fetched(slides, tmp_path / "s")
        assert _without_turns(found) == digests(annotated / "annotated.zarr")


@pytest.mark.parametrize("part", ["/turns/", "/partial/errors/"])
def test_of_two_processes_that_evaluate_in_a_bucket_one_is_killed(annotated, tmp_path, part):
    truth = annotated / "annotated.zarr"
    words = ("--truth", truth, "--label", "hand", "--threshold", "0.4", "--maps", "--out")
    shutil.copytree(annotated / "p.zarr", tmp_path / "calm.zarr")
    run_json("evaluate", tmp_path / "calm.zarr", *words, tmp_path / "calm")
    with object_store() as gate:
        found = sent(annotated / "p.zarr", in_bucket("p.zarr"))
        _one_is_killed(("evaluate", found, *words, tmp_path / "shared"), gate, part)
        assert _without_turns(fetched(found, tmp_path / "p")) == digests(tmp_path / "calm.zarr")
        assert run_json("status", found)["complete"]
    assert digests(tmp_path / "shared") == digests(tmp_path / "calm")
