import csv

import numpy as np
import pytest
from typer.testing import CliRunner

from wsi_seg.classes import ClassTable
from wsi_seg.cli.app import app
from wsi_seg.ct.candidates import write_candidates
from wsi_seg.errors import StoreError
from wsi_seg.progress import Silent
from wsi_seg.slides.volume import VolumeGrid
from wsi_seg.store import (
    create_collection,
    open_predictions,
)
from wsi_seg.store.lock import locked
from wsi_seg.testing.stores import write_image

UNTURNED = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
GRID = VolumeGrid((40, 60, 3), (0.5, 0.5, 2.0), (-10.0, 5.0, 100.0), UNTURNED)


def predict(folder, name, ids):
    classes = ClassTable.named(["nodule"]).to_json()
    path = folder / "pred.zarr"
    create_collection(path)
    write_image(path / name, ids[..., None] * np.uint8(200), {"classes": classes}, mpp=None)
    write_image(path / name / "labels" / "prediction", ids, {"classes": classes}, mpp=None)
    return path


def test_candidates_are_where_the_objects_are_in_the_world(tmp_path):
    ids = np.zeros((30, 20), np.uint8)
    ids[9:12, 4:7] = 1  # at half the volume's resolution
    for z in range(3):
        path = predict(tmp_path, f"ct_z{z:04d}", ids if z < 2 else np.zeros_like(ids))
    report = write_candidates(
        open_predictions(path), {"ct": GRID}, tmp_path / "m.csv", progress=Silent()
    )
    assert report.candidates == {"ct": 1}
    with (tmp_path / "m.csv").open() as file:
        (row,) = csv.DictReader(file)
    # Pixels 4 to 6 end at 8 to 14 voxels, whose middle is 10.5; half a mm each.
    assert float(row["coordX"]) == pytest.approx(-10 + 10.5 * 0.5)
    assert float(row["coordY"]) == pytest.approx(5 + 20.5 * 0.5)
    assert float(row["coordZ"]) == pytest.approx(101)
    assert (row["seriesuid"], row["probability"], row["slices"]) == ("ct", "0.7843", "2")


def test_of_candidates_that_are_near_the_more_probable_stays(tmp_path):
    ids = np.zeros((30, 20), np.uint8)
    ids[9:12, 4:7] = 1
    ids[9:12, 8:12] = 1  # 4.5 mm away, and larger
    ids[25:28, 4:7] = 1
    path = predict(tmp_path, "ct_z0001", ids)
    for distance_mm, count in ((4.4, 3), (4.6, 2)):
        report = write_candidates(
            open_predictions(path), {"ct": GRID}, tmp_path / "m.csv", min_distance_mm=distance_mm,
            progress=Silent(),
        )  # fmt: skip
        assert report.candidates == {"ct": count}
    with (tmp_path / "m.csv").open() as file:
        assert [row["px"] for row in csv.DictReader(file)] == ["12", "9"]


def test_what_is_not_a_volume_or_not_known_is_named(tmp_path):
    path = predict(tmp_path, "plain", np.zeros((30, 20), np.uint8))
    with pytest.raises(StoreError, match="no slices of volumes"):
        write_candidates(open_predictions(path), {}, tmp_path / "m.csv", progress=Silent())
    predict(tmp_path, "ct_z0000", np.zeros((30, 20), np.uint8))
    with pytest.raises(StoreError, match="no volume file for 'ct'"):
        write_candidates(open_predictions(path), {"b": GRID}, tmp_path / "m.csv", progress=Silent())
    assert not (tmp_path / "m.csv").exists()


@pytest.mark.parametrize(("words", "held"), [((), False), (("--threshold", "0.5"), True)])
def test_a_prediction_that_gets_a_decision_is_held(tmp_path, words, held):
    path = predict(tmp_path, "ct_z0000", np.zeros((30, 20), np.uint8))
    with locked(path, "wsi-seg infer"):
        done = CliRunner().invoke(
            app, ["ct", "candidates", str(path), "--volumes", str(tmp_path / "none.mhd"), *words]
        )
    assert done.exit_code == 1
    assert ("is in use by `wsi-seg infer`" in done.output) is held


@pytest.mark.parametrize("diameter_mm", [6.0, 9.0, 15.0])
def test_a_candidate_has_the_diameter_of_its_nodule(tmp_path, diameter_mm):
    """Spheres, in voxels of .5 x .5 x 2 mm, predicted at half the volume's resolution."""
    z, y, x = np.mgrid[:12, :30, :20]
    away = np.sqrt((y + 0.5 - 15) ** 2 + (x + 0.5 - 10) ** 2 + (2.0 * (z - 6)) ** 2)
    for number, plane in enumerate(away <= diameter_mm / 2):
        path = predict(tmp_path, f"ct_z{number:04d}", plane.astype(np.uint8))
    grid = VolumeGrid((40, 60, 12), (0.5, 0.5, 2.0), (-10.0, 5.0, 100.0), UNTURNED)
    write_candidates(open_predictions(path), {"ct": grid}, tmp_path / "m.csv", progress=Silent())
    with (tmp_path / "m.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["diameter_mm"]) == pytest.approx(diameter_mm, rel=0.1)
