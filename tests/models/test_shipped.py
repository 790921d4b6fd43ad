"""The model that is shipped with the package."""

import csv
import json

from wsi_seg.config import load_recipe
from wsi_seg.evaluation.compare import evaluate
from wsi_seg.exporting.run import export
from wsi_seg.exporting.targets import ExportTargets
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer
from wsi_seg.ingest.run import tile_slides
from wsi_seg.masks.annotate import annotate
from wsi_seg.masks.reading import Reading
from wsi_seg.models.checkpoint import read_card, shipped_checkpoint
from wsi_seg.predict.ensemble import newest_model, read_model
from wsi_seg.progress import Silent
from wsi_seg.slides.window import OpenOptions
from wsi_seg.store import open_collection, open_predictions


def test_it_is_the_default_model(tmp_path):
    assert newest_model(tmp_path) == shipped_checkpoint()
    assert shipped_checkpoint().stat().st_size < 16e6


def test_its_card_and_recipe_agree_without_paths():
    card = read_card(shipped_checkpoint())
    recipe = load_recipe(shipped_checkpoint().with_suffix(".yaml"))
    assert card.classes.names == recipe.class_table.names == ("nucleus",)
    assert (card.encoder, card.full_resolution_skip) == (
        recipe.model.encoder,
        recipe.model.full_resolution_skip,
    )
    assert card.tile_px == recipe.stages[-1].patch_px
    assert "/" not in json.dumps(card.to_json()).replace("/ ", "")


def test_nuclei_of_unseen_images(shared_data, tmp_path):
    folder = shared_data / "dsb2018-nuclei"
    with (folder / "index.csv").open() as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if row["kind"].startswith("he") and row["suggested_split"] == "val"
        ]
    names = [row["file"] for row in rows]
    assert len(names) == 12
    for mpp, groups in ((0.25, ("he2", "he5")), (0.5, ("he0", "he1", "he3", "he4"))):
        images = [folder / "images" / f"{r['file']}.png" for r in rows if r["cluster"] in groups]
        opening = OpenOptions(mpp=mpp)
        tile_slides(images, tmp_path / "s.zarr", opening=opening, progress=Silent())
    slides = open_collection(tmp_path / "s.zarr")
    masks = [folder / "masks" / f"{name}.png" for name in names]
    annotate(slides, masks, reading=Reading(default_class="nucleus"), progress=Silent())
    model = read_model([shipped_checkpoint()])
    infer(slides, model, tmp_path / "p.zarr", InferOptions(), progress=Silent())
    found = open_predictions(tmp_path / "p.zarr")
    scores = evaluate(found, slides, label="annotations", progress=Silent())
    assert scores.pooled("nucleus").dice >= 0.90


def test_hardly_any_object_on_a_slide_of_skin_is_too_small_or_large_for_a_nucleus(
    shared_data, tmp_path
):
    slide = shared_data / "slides-small" / "CMU-1-Small-Region.svs"
    tile_slides([slide], tmp_path / "s.zarr", progress=Silent())
    slides = open_collection(tmp_path / "s.zarr")
    model = read_model([shipped_checkpoint()])
    infer(slides, model, tmp_path / "p.zarr", InferOptions(), progress=Silent())
    found = open_predictions(tmp_path / "p.zarr")
    targets = ExportTargets(table=tmp_path)
    export(found, slides, targets, progress=Silent())
    with (tmp_path / f"{slide.stem}.csv").open() as file:
        areas = [float(row["area_um2"]) for row in csv.DictReader(file)]
    assert len(areas) > 500
    assert sum(not 10 <= area <= 400 for area in areas) < 0.03 * len(areas)
