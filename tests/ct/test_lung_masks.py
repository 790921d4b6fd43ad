"""Lung masks of stores: written as tissue, shown, trusted where empty, with rules of cases."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.cards import make_card
from wsi_seg.ct.config import LungRule, LungRules, read_lung_rules
from wsi_seg.ct.lung_masks import mask_lungs
from wsi_seg.errors import BatchError, ConfigError
from wsi_seg.geometry import Region
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer
from wsi_seg.ingest.run import tile_slides
from wsi_seg.models import build_network, save_checkpoint
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection, open_predictions
from wsi_seg.testing.phantoms import write_mhd

pytest.importorskip("SimpleITK", reason="needs the extra `volume`")

SPACING = (10.0, 3.0, 3.0)
LUNGS = LungRules(rule=LungRule(volume_l=(0.1, 8.2)))


@pytest.fixture(scope="module")
def chest_store(tmp_path_factory):
    """Two lungs in slices 2 to 9 of 12, 100 x 130 px."""
    folder = tmp_path_factory.mktemp("chest")
    volume = np.full((12, 100, 130), -1000, np.int16)
    y, x = np.mgrid[:100, :130]
    volume[:, ((y - 50) / 45) ** 2 + ((x - 65) / 60) ** 2 < 1] = 40
    for middle in (40, 90):
        volume[2:10, (y - 50) ** 2 + (x - middle) ** 2 < 15**2] = -850
    write_mhd(folder / "ct.mhd", volume, SPACING)
    tile_slides([folder / "ct.mhd"], folder / "ct.zarr", progress=Silent())
    return folder / "ct.zarr"


def masked(store, out, rules=LUNGS, slice_mm=None):
    return mask_lungs(
        list(open_collection(store)),
        rules,
        out,
        slice_mm={"ct": 10.0} if slice_mm is None else slice_mm,
        progress=Silent(),
    )


def test_masks_replace_the_tissue_and_a_picture_shows_them(chest_store, tmp_path):
    report = masked(chest_store, tmp_path / "look")
    (case,) = report.cases
    true = np.pi * 45**2 * 80 * 1e-6
    assert case.litres == pytest.approx((true, true), rel=0.05)
    assert case.flags == ()
    slices = {store.name: store for store in open_collection(chest_store)}
    mask = slices["ct_z0005"].label("tissue").read(Region(level=0, y=0, x=0, height=100, width=130))
    assert mask[50, 40]
    assert mask[50, 90]
    assert not mask[50, 65]
    assert not mask[5, 5]
    with Image.open(tmp_path / "look" / case.picture) as picture:
        assert picture.width > 600


def test_a_slice_without_lung_is_not_predicted(chest_store, tmp_path):
    masked(chest_store, tmp_path)
    card = make_card(mpp=3000)
    save_checkpoint(tmp_path / "m.safetensors", build_network(card.spec), card)
    report = infer(
        open_collection(chest_store), tmp_path / "m.safetensors", tmp_path / "pred.zarr",
        InferOptions(precision="fp32", batch=4), progress=Silent(),
    )  # fmt: skip
    tiles = {slide.slide: slide.tiles for slide in report.slides}
    assert tiles["ct_z0000"] == 0
    assert tiles["ct_z0005"] > 0
    predicted = open_predictions(tmp_path / "pred.zarr")["ct_z0000"]
    assert not predicted.image.read(Region(level=0, y=0, x=0, height=100, width=130)).any()


def test_rules_of_cases_build_on_the_common_rule(tmp_path):
    path = tmp_path / "lungs.yaml"
    path.write_text("rule: {volume_l: [0.2, 9]}\ncases: {scan7: {threshold_hu: -150, keep: 2}}\n")
    rules = read_lung_rules(path)
    assert rules.of("other").threshold_hu == -600
    assert rules.of("scan7") == LungRule(threshold_hu=-150, keep=2, volume_l=(0.2, 9))
    path.write_text("cases: {scan7: {treshold_hu: -150}}\n")
    with pytest.raises(ConfigError, match=r"treshold_hu.*threshold_hu"):
        read_lung_rules(path)
    path.write_text("rule: {volume_l: [9, 0.2]}\n")
    with pytest.raises(ConfigError, match=r"volume_l: .*expected the smaller number first"):
        read_lung_rules(path)


def test_what_is_missing_is_named(chest_store, tmp_path):
    with pytest.raises(BatchError, match="slice_mm"):
        masked(chest_store, tmp_path, slice_mm={}).require_whole()
    with pytest.raises(ConfigError, match="rules for scan9; expected some of ct"):
        masked(chest_store, tmp_path, LungRules(cases={"scan9": LungRule()}))
    with pytest.raises(ConfigError, match="but no slice of a volume"):
        mask_lungs([], LUNGS, tmp_path, slice_mm={}, progress=Silent())


def test_the_verb_prints_volumes_and_flags(chest_store, tmp_path, capsys):
    from wsi_seg.cli.app import app

    with pytest.raises(SystemExit) as stopped:
        app(
            ["ct", "lungs", str(chest_store), "--volumes", str(chest_store.parent / "ct.mhd"),
             "--out", str(tmp_path), "--json"],
            prog_name="wsi-seg",
        )  # fmt: skip
    assert stopped.value.code == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["cases"][0]["flags"] == ["no lung found"]  # 0.5 l each: below the default rule
