"""Owns the demo: all steps on synthetic slides, and on a real image of tissue."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from wsi_seg.counts import counted
from wsi_seg.errors import OutputError
from wsi_seg.files.atomic import atomic_path, write_atomic
from wsi_seg.progress import Progress

# Name, height and width in pixels, and seed. The last slide is not used in training.
SLIDES = (("train", 9216, 12288, 7), ("val", 4608, 6144, 11), ("test", 9216, 12288, 23))
LEARNED = ("train", "val")

MPP = 0.5
LABEL = "annotations"

RECIPE = """\
# Segments glands at 2 um per pixel: two minutes on two idle CPU cores, longer on busy ones.
name: demo
seed: 1
classes: [{name: gland}]
data:
  stores: [learn.zarr]
  label: annotations
  train: [train]
  validation: [val]
mpp: 2.0
patch_px: 128
sampling:
  mix: {objects: 0.6, tissue: 0.35, background: 0.05}
  patches_per_epoch: 400
optimizer: {name: adamw, lr: 0.002}
train: {epochs: 5, batch_size: 8, validate_every: 5}
"""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DemoReport:
    """Results of the demo.

    Parameters
    ----------
    dice, iou
        Scores of glands on the test slide.
    tiles_per_second
        Speed of inference, including reading and writing; 0 if an earlier run did it.
    peak_memory
        Peak memory of this process in bytes.
    seconds
        Total time in seconds.
    picture, polygons
        Overview of the test slide with the predicted objects, and these as GeoJSON.
    """

    dice: float
    iou: float
    tiles_per_second: float
    peak_memory: int
    seconds: float
    picture: Path
    polygons: Path

    def lines(self) -> list[str]:
        """Return the results as lines of text."""
        memory, minutes = self.peak_memory / 1e9, self.seconds / 60
        return [
            f"Dice {self.dice:.4f}, IoU {self.iou:.4f} on a slide that was not in training",
            f"{self.tiles_per_second:.1f} tiles/s, peak memory {memory:.2f} GB, {minutes:.1f} min",
            f"Look at {self.picture}",
        ]

    def to_json(self) -> dict[str, object]:
        """Return the results as JSON values."""
        return asdict(self) | {"picture": str(self.picture), "polygons": str(self.polygons)}


@dataclass(frozen=True, slots=True, eq=False)
class _Stage:
    """Output folder and reporting of the demo."""

    out: Path
    say: Say
    progress: Progress

    def path(self, name: str) -> Path:
        return self.out / name

    def report(self, what: str, command: str) -> None:
        self.say(f"{what}\n    $ {command}")


def run_demo(out: Path, *, say: Say, progress: Progress) -> DemoReport:
    """Generate slides, train on two of them, and segment a third and a real image.

    Finished steps of an earlier run are kept, so a rerun resumes where it stopped.

    Parameters
    ----------
    out
        Output folder.
    say
        Called with the result of each step and its command.
    progress
        Reports the progress of long steps.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    began = time.monotonic()
    stage = _Stage(out, say, progress)
    try:
        stage.path("slides").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{OutputError.of(out, error)}; try another --out") from error
    _make_slides(stage)
    _inform(stage)
    _tile(stage, [stage.path(f"slides/{name}.tif") for name in LEARNED], stage.path("learn.zarr"))
    _tile(stage, [stage.path("slides/test.tif")], stage.path("test.zarr"))
    _annotate(stage, stage.path("learn.zarr"), LEARNED)
    _annotate(stage, stage.path("test.zarr"), ["test"])
    checkpoint = _train(stage)
    rate, memory = _infer(stage, checkpoint)
    dice, iou = _evaluate(stage)
    _export(stage, "test", with_polygons=True)
    _real_picture(stage, checkpoint)
    return DemoReport(
        dice=dice,
        iou=iou,
        tiles_per_second=rate,
        peak_memory=memory,
        seconds=time.monotonic() - began,
        picture=stage.path("overviews/test.png"),
        polygons=stage.path("polygons/test.geojson"),
    )


def _make_slides(stage: _Stage) -> None:
    from wsi_seg.testing.tissue import write_tissue_slide

    made = []
    for name, height, width, seed in SLIDES:
        path = stage.path(f"slides/{name}.tif")
        if not path.exists():
            write_tissue_slide(
                path, height=height, width=width, seed=seed, mpp=MPP, progress=stage.progress
            )
            made.append(name)
    done = f"made {', '.join(made)}" if made else "from an earlier run"
    stage.say(f"Slides and ground truth: {stage.path('slides')} ({done})")


def _inform(stage: _Stage) -> None:
    from wsi_seg.slides import open_slide

    path = stage.path("slides/test.tif")
    with open_slide(path) as slide:
        size, levels = slide.pyramid.extent, counted(len(slide.pyramid.extents), "level")
        about = f"{slide.format}, {size}, {levels}, {slide.pyramid.mpp} um/px"
    stage.report(f"{slide.name}: {about}", f"wsi-seg info {path}")


def _tile(stage: _Stage, slides: Sequence[Path], store: Path) -> None:
    from wsi_seg.ingest.run import tile_slides
    from wsi_seg.store import open_collection

    tile_slides(slides, store, progress=stage.progress).require_whole()
    collection = open_collection(store)
    names = " ".join(str(path) for path in slides)
    stage.report(
        f"Store {store}: {', '.join(collection.names())}", f"wsi-seg tile {names} --out {store}"
    )


def _annotate(stage: _Stage, store: Path, names: Sequence[str]) -> None:
    from wsi_seg.annotations import read_annotations
    from wsi_seg.masks.labels import write_labels
    from wsi_seg.store import open_collection
    from wsi_seg.testing.tissue import CLASSES

    collection = open_collection(store)
    files = [stage.path(f"slides/{name}.geojson") for name in names]
    count = 0
    for name, file in zip(names, files, strict=True):
        annotations = read_annotations(file)
        count += len(annotations.items)
        if LABEL not in collection[name].label_names():
            write_labels(collection[name], annotations, CLASSES, LABEL)
    stage.report(
        f"Labels {LABEL!r} in {store}: {counted(count, 'outline')}",
        f"wsi-seg annotate {store} {' '.join(str(file) for file in files)}",
    )


def _train(stage: _Stage) -> Path:
    from wsi_seg.config import load_recipe
    from wsi_seg.learn.train import train
    from wsi_seg.models.checkpoint import read_card

    recipe, run = stage.path("recipe.yaml"), stage.path("run")
    checkpoint = run / "best.safetensors"
    if not recipe.exists():
        write_atomic(recipe, RECIPE)
    duration = ""
    if not (run / "done").exists():
        report = train(load_recipe(recipe), run, progress=stage.progress)
        duration = f", trained in {report.seconds / 60:.1f} min"
        (run / "done").touch()
    dice = read_card(checkpoint).scores["val_dice"]
    text = f"Model {checkpoint}: val_dice {dice:.4f}{duration}"
    stage.report(text, f"wsi-seg train {recipe} --out {run}")
    return checkpoint


def _infer(stage: _Stage, checkpoint: Path) -> tuple[float, int]:
    from wsi_seg.inference.options import InferOptions
    from wsi_seg.inference.run import infer
    from wsi_seg.store import open_collection

    store, out = stage.path("test.zarr"), stage.path("test_pred.zarr")
    report = infer(
        open_collection(store), checkpoint, out, InferOptions(overlap=0.5), progress=stage.progress
    )
    report.require_whole()
    stage.report(
        f"Prediction {out}: {counted(report.tiles, 'tile')} in {report.seconds:.1f} s",
        f"wsi-seg infer {store} --checkpoint {checkpoint} --overlap 0.5 --out {out}",
    )
    return report.tiles_per_second, report.peak_memory


def _evaluate(stage: _Stage) -> tuple[float, float]:
    from wsi_seg.evaluation.compare import evaluate
    from wsi_seg.evaluation.scores import Measures
    from wsi_seg.store import open_collection, open_predictions

    prediction, truth = stage.path("test_pred.zarr"), stage.path("test.zarr")
    scores = evaluate(
        open_predictions(prediction),
        open_collection(truth),
        label=LABEL,
        measures=Measures(),
        progress=stage.progress,
    )
    pooled = scores.pooled("gland")
    stage.report(
        f"Against the truth: Dice {pooled.dice:.4f}, IoU {pooled.iou:.4f}",
        f"wsi-seg evaluate {prediction} --truth {truth}",
    )
    return pooled.dice, pooled.iou


def _export(stage: _Stage, name: str, *, with_polygons: bool) -> None:
    from wsi_seg.exporting.run import export
    from wsi_seg.exporting.targets import ExportTargets
    from wsi_seg.store import open_collection, open_predictions

    prediction, store = stage.path(f"{name}_pred.zarr"), stage.path(f"{name}.zarr")
    pictures, polygons = stage.path("overviews"), stage.path("polygons")
    targets = ExportTargets(geojson=polygons if with_polygons else None, overview=pictures)
    export(
        open_predictions(prediction), open_collection(store), targets, progress=stage.progress
    ).require_whole()
    options = (
        f"--geojson {polygons} --overview {pictures}" if with_polygons else f"--overview {pictures}"
    )
    stage.report(
        f"Picture {pictures / name}.png", f"wsi-seg export {prediction} --slides {store} {options}"
    )


def _real_picture(stage: _Stage, checkpoint: Path) -> None:
    """Run the same steps on a real image of unknown mpp, with another stain.

    It is the colon image packaged with scikit-image (no known copyright restrictions); nothing is
    downloaded. The model was not trained on such images: this shows the steps, not the model.
    """
    from PIL import Image
    from skimage import data

    from wsi_seg.inference.options import InferOptions
    from wsi_seg.inference.run import infer
    from wsi_seg.store import open_collection

    path, store = stage.path("slides/ihc.png"), stage.path("ihc.zarr")
    if not path.exists():
        pixels = data.immunohistochemistry()  # type: ignore[no-untyped-call]
        with atomic_path(path) as partial:
            Image.fromarray(pixels).save(partial, format="PNG")
    _tile(stage, [path], store)
    out = stage.path("ihc_pred.zarr")
    options = InferOptions(overlap=0.5, allow_mpp_mismatch=True)
    report = infer(open_collection(store), checkpoint, out, options, progress=stage.progress)
    report.require_whole()
    stage.report(
        f"Prediction {out}: {counted(report.tiles, 'tile')}; real, unlike the training data",
        f"wsi-seg infer {store} --checkpoint {checkpoint} --allow-mpp-mismatch --out {out}",
    )
    _export(stage, "ihc", with_polygons=False)
