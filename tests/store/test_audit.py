import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.makers.coordinates import Codec, write_coordinate_tiff
from wsi_seg.cli.app import app
from wsi_seg.errors import BatchError, StoreError
from wsi_seg.evaluation.pairing import require_same_slide
from wsi_seg.geometry import Extent
from wsi_seg.ingest.run import tile_slides
from wsi_seg.masks.labels import write_tissue
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection, open_predictions, store_digest, update_attributes
from wsi_seg.store.audit import audit_collection
from wsi_seg.store.digests import file_digest, read_digests


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    codecs: dict[str, Codec] = {"a": "deflate", "b": "jpeg"}
    for name, codec in codecs.items():
        write_coordinate_tiff(
            folder / f"{name}.tif", extents=[Extent(height=700, width=530)], codec=codec
        )
    tile(folder, folder / "s.zarr")
    return folder


def tile(folder, out):
    slides = [folder / "a.tif", folder / "b.tif"]
    tile_slides(slides, out, progress=Silent()).require_whole()


@pytest.fixture
def store(original, tmp_path):
    return shutil.copytree(original / "s.zarr", tmp_path / "s.zarr")


def audit(path, **options):
    return audit_collection(open_collection(path), progress=Silent(), **options)


def test_a_sound_collection_passes_and_every_file_was_read(store):
    found = audit(store)
    found.require_whole()
    assert found.sound == ["a", "b"]
    files = [path for path in store.rglob("*") if path.is_file() and path.name != "digests.json"]
    kept = {store, store / ".wsi_seg", store / "a/labels", store / "b/labels"}
    outside = [path for path in files if path.parent in kept]
    assert found.files == len(files) - len(outside)
    assert found.nbytes == sum(path.stat().st_size for path in set(files) - set(outside))


def test_what_the_journal_knew_is_what_the_files_hold(store):
    for name in "ab":
        digests = read_digests(store / name)
        assert digests is not None
        for file, digest in digests.items():
            assert file_digest(store / name / file) == digest, file


def test_every_flipped_bit_is_found(store):
    draws = np.random.default_rng(0)
    files = sorted(path for path in (store / "a").rglob("*") if path.is_file())
    flipped = 0
    for path in files:
        if path.parent.name == "labels":
            continue  # a list of names; a label that it loses is found by its folder
        data = bytearray(path.read_bytes())
        for _ in range(4):
            place, bit = int(draws.integers(len(data))), int(draws.integers(8))
            data[place] ^= 1 << bit
            path.write_bytes(data)
            found = audit(store)
            assert list(found.faults) == ["a"], (path, place, bit)
            assert found.sound == ["b"]
            data[place] ^= 1 << bit
            flipped += 1
        path.write_bytes(data)
    audit(store).require_whole()
    assert flipped > 20


def test_missing_cut_and_foreign_files_are_named(store):
    shard = store / "a/0/c/0/0/0"
    kept = shard.read_bytes()
    shard.unlink()
    assert "0/c/0/0/0 is missing" in audit(store).faults["a"][0]
    shard.write_bytes(kept[:-3])
    with pytest.raises(BatchError, match="digest differs"):
        audit(store).require_whole()
    shard.write_bytes(kept)
    shutil.copy(shard, shard.with_name("7"))
    assert "0/c/0/0/7 is not among the digests" in audit(store).faults["a"][0]
    shard.with_name("7").unlink()
    shutil.rmtree(store / "b/labels/tissue")
    assert audit(store).faults == {"b": ["label tissue is listed and missing"]}
    (store / "a/.wsi_seg/digests.json").unlink()
    assert "has no digests" in audit(store).faults["a"][0]


def test_unfinished_work_is_named(store):
    (store / ".wsi_seg/partial/c/0").mkdir(parents=True)
    assert "is unfinished; repeat" in audit(store).faults["c"][0]


def test_a_damaged_store_is_put_aside_and_made_again(original, store):
    digest = store_digest(store / "a")
    for _ in range(2):
        (store / "a/0/c/0/0/0").write_bytes(b"gone")
        moved = audit(store, quarantine=True)
        assert moved.quarantined["a"].is_dir()
        assert open_collection(store).names() == ("b",)
        tile(original, store)
        assert store_digest(store / "a") == digest
        audit(store).require_whole()
    assert {path.name for path in (store / ".wsi_seg/quarantine").iterdir()} == {"a", "a.2"}


def test_the_verb_ends_with_code_1_and_names_the_fault(store):
    run = CliRunner().invoke(app, ["verify", str(store), "--json"])
    assert run.exit_code == 0, run.output
    (store / "b/0/zarr.json").write_text("{}")
    run = CliRunner().invoke(app, ["verify", str(store)])
    assert run.exit_code == 1
    assert "1 of 2 slides failed, 1 done" in run.stderr


def test_labels_may_come_and_go(store):
    before = store_digest(store / "a")
    shutil.rmtree(store / "a/labels")
    assert store_digest(store / "a") == before
    (slide,) = (slide for slide in open_collection(store) if slide.name == "a")
    write_tissue(slide)
    audit(store).require_whole()


def test_a_prediction_of_a_store_that_changed_is_refused(store, tmp_path):
    shutil.copytree(store, tmp_path / "p.zarr", ignore=shutil.ignore_patterns("b"))
    settings = {"slide_digest": store_digest(store / "a")}
    update_attributes(
        tmp_path / "p.zarr/a", {"kind": "prediction", "slide": "a", "settings": settings}
    )
    prediction, truth = open_predictions(tmp_path / "p.zarr")["a"], open_collection(store)["a"]
    require_same_slide(prediction, truth)
    update_attributes(store / "a", {"mpp": 0.25})
    audited = audit(store)
    assert "zarr.json has changed" in audited.faults["a"][0]
    digests = (store / "a/.wsi_seg/digests.json").read_text()
    (store / "a/.wsi_seg/digests.json").write_text(digests.replace("}", " }"))
    with pytest.raises(StoreError, match=r"slide 'a' has changed since it was predicted"):
        require_same_slide(prediction, truth)
