"""Our figures next to those of MONAI, torchmetrics, scikit-learn and scikit-image, to 1e-6."""

from typing import Any

import numpy as np
import pytest
import torch
from monai.metrics.meandice import compute_dice
from monai.metrics.meaniou import compute_iou
from skimage.measure import label as label_components
from skimage.metrics import hausdorff_distance
from sklearn.metrics import f1_score, jaccard_score
from torchmetrics.segmentation import DiceScore, MeanIoU

from tests.makers.memory import MemoryImage, MemoryStore
from wsi_seg.classes import ClassTable
from wsi_seg.errors import StoreError
from wsi_seg.evaluation.compare import evaluate_slide
from wsi_seg.evaluation.scores import Measures, Scores
from wsi_seg.progress import Silent

CLASSES = ClassTable.named(["gland", "vessel"])


def store(ids, name="s", noted=None, **labels):
    picture = MemoryImage(np.zeros((*ids.shape, 3), np.uint8), attributes=noted)
    classes = {"classes": CLASSES.to_json()}
    images = {key: MemoryImage(px, attributes=classes) for key, px in labels.items()}
    return MemoryStore(picture, name=name, **images)


def scored(found, true, name="s", **measures):
    return evaluate_slide(
        store(found, name, prediction=found), store(true, name, truth=true),
        label="truth", measures=Measures(**measures), progress=Silent(),
    )  # fmt: skip


@pytest.fixture
def slides():
    """Two slides, found and true: blobs of two classes, and some pixels that are wrong."""
    rng, pairs = np.random.default_rng(4), []
    for shape in ((71, 53), (40, 99)):
        true = np.kron(rng.integers(0, 3, (8, 10)), np.ones((9, 10)))[: shape[0], : shape[1]]
        found = np.where(rng.random(true.shape) < 0.2, rng.integers(0, 3, true.shape), true)
        pairs.append((found.astype(np.uint8), true.astype(np.uint8)))
    return pairs


def test_dice_and_iou_are_those_of_scikit_learn(slides):
    scores = Scores(
        tuple(s for n, (found, true) in enumerate(slides) for s in scored(found, true, f"s{n}"))
    )
    found, true = (np.concatenate([pair[side].ravel() for pair in slides]) for side in (0, 1))
    for entry in CLASSES:
        pooled = scores.pooled(entry.name)
        mine, theirs = found == entry.id, true == entry.id
        assert pooled.dice == pytest.approx(f1_score(theirs, mine), abs=1e-6)
        assert pooled.iou == pytest.approx(jaccard_score(theirs, mine), abs=1e-6)
        for n, one in enumerate(scores.of(entry.name)):
            mine, theirs = (ids.ravel() == entry.id for ids in slides[n])
            assert one.counts.dice == pytest.approx(f1_score(theirs, mine), abs=1e-6)


def test_dice_and_iou_are_those_of_torchmetrics(slides):
    for found, true in slides:
        ours = scored(found, true)
        found_ids, true_ids = (
            torch.from_numpy(ids.astype(np.int64))[None] for ids in (found, true)
        )
        dice = DiceScore(3, include_background=False, average="none", input_format="index")
        iou = MeanIoU(3, include_background=False, per_class=True, input_format="index")
        for metric, values in (
            (dice, [one.counts.dice for one in ours]),
            (iou, [one.counts.iou for one in ours]),
        ):
            assert values == pytest.approx(metric(found_ids, true_ids).ravel().tolist(), abs=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning:monai.*")
def test_dice_and_iou_are_those_of_monai(slides):
    for found, true in slides:
        one, other = (
            torch.from_numpy(np.stack([ids == n for n in (1, 2)])[None]).float()
            for ids in (found, true)
        )
        dice = compute_dice(one, other, include_background=True)
        iou = compute_iou(one, other, include_background=True)
        ours = scored(found, true)
        assert [s.counts.dice for s in ours] == pytest.approx(dice[0].tolist(), abs=1e-6)
        assert [s.counts.iou for s in ours] == pytest.approx(iou[0].tolist(), abs=1e-6)


def test_the_hausdorff_distance_is_that_of_scikit_image():
    y, x = np.mgrid[:60, :80]
    found = (np.hypot(y - 30, x - 40) < 17).astype(np.uint8)
    true = (np.hypot(y - 27, (x - 45) / 1.3) < 18).astype(np.uint8)
    (gland, _) = scored(found, true, tolerance_um=1.0)
    inner = [mask & ~_eroded(mask) for mask in (found > 0, true > 0)]
    assert gland.distances.hausdorff(1.0) == pytest.approx(hausdorff_distance(*inner), abs=1e-6)


def _eroded(mask):
    padded = np.pad(mask, 1)
    return padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:] & mask


def test_numbers_of_objects_are_those_of_scikit_image(slides):
    for found, true in slides:
        for entry, one in zip(CLASSES, scored(found, true, objects=True), strict=True):
            for ids, count in ((found, one.objects.found), (true, one.objects.true)):
                assert count == label_components(ids == entry.id, connectivity=1).max()


def test_means_over_tiles_over_slides_and_over_pixels_differ_and_are_named():
    """A slide with much of a class, found well; one with little of it, found badly."""
    large, small = np.zeros((40, 60), np.uint8), np.zeros((40, 60), np.uint8)
    large[:, :40] = 1
    small[:2, :10] = 1
    missed = small.copy()
    missed[:, 4:] = 0
    missed[30, 50] = 1
    scores = Scores(
        tuple(
            one
            for name, pair in (("large", (large, large)), ("small", (missed, small)))
            for one in scored(*pair, name, tile_px=20)
        )
    )
    document: Any = scores.to_json()
    gland = document["classes"]["gland"]
    of_small = 2 * 8 / (9 + 20)
    assert gland["pooled_dice"] == pytest.approx(2 * 1608 / (1609 + 1620))
    assert gland["slide_dice_mean"] == pytest.approx((1 + of_small) / 2)
    # Four tiles of the large slide, and of the small one that with the class and the false pixels.
    assert gland["tile_dice_mean"] == pytest.approx((4 * 1 + 2 * 8 / 28 + 0) / 6)
    assert len({gland[k] for k in ("pooled_dice", "slide_dice_mean", "tile_dice_mean")}) == 3
    # No pixels anywhere is 1; any pixel where none is true is 0.
    empty = np.zeros_like(large)
    vessel = [s.counts.dice for s in scores.of("vessel")]
    assert vessel == [1, 1]
    assert scored(large, empty)[0].counts.dice == 0


def test_another_slide_and_another_level_are_refused_naming_both():
    ids = np.zeros((50, 40), np.uint8)
    found = store(ids, "a", {"slide": "a"}, prediction=ids)
    true = store(ids, "b", truth=ids)
    with pytest.raises(StoreError, match=r"made for slide 'a'.*slide 'b'"):
        evaluate_slide(found, true, label="truth", progress=Silent())
    found = store(ids, "a", {"slide": "a", "downsample": 4.0}, prediction=ids)
    true = store(ids, "a", truth=ids)
    with pytest.raises(StoreError, match=r"downsample of 4.*downsampled by 1; expected the same"):
        evaluate_slide(found, true, label="truth", progress=Silent())
