import numpy as np
import torch

from wsi_seg.config.augment import MixBatchesConfig
from wsi_seg.data.mix import mix_batch, probabilities

ONES = torch.ones(())


def batch():
    """Return four patches that encode their index, each with a square, and one ignored pixel."""
    images = torch.arange(4, dtype=torch.uint8).reshape(4, 1, 1, 1).expand(4, 3, 20, 30) * 50
    labels = torch.zeros(4, 20, 30, dtype=torch.uint8)
    labels[:, 8:12, 10:14] = 2
    labels[1, 0, 0] = 255
    return images.clone(), labels


def test_cutmix_pastes_labels_and_foreground():
    images, labels = batch()
    labels += images[:, 0] // 50 * 10 * (labels == 2)  # ids encode the patch, too
    for seed in range(20):
        torch.manual_seed(seed)
        mixed, truth, _ = mix_batch(images, labels, ONES, MixBatchesConfig(p=1), classes=99)
        assert mixed.dtype == torch.uint8
        for index in range(4):
            pasted = mixed[index, 0] == images[index - 1, 0, 0, 0]
            assert torch.equal(truth[index][pasted], labels[index - 1][pasted])
            assert torch.equal(truth[index][~pasted], labels[index][~pasted])
            rows, columns = pasted.any(1).sum(), pasted.any(0).sum()
            assert pasted.sum() == rows * columns  # a single box
            own = labels[index - 1] == 2 + images[index - 1, 0, 0, 0] // 50 * 10
            assert (pasted & own).any()


def test_mixup_ignores_pixels_that_either_patch_ignores():
    images, labels = batch()
    torch.manual_seed(1)
    config = MixBatchesConfig(kind="mixup", p=1)
    mixed, truth, _ = mix_batch(images, labels, ONES, config, classes=2)
    share = float(mixed[1, 0, 5, 5]) / 50  # patch 1 mixed with patch 0, which is black
    assert 0 < share < 1
    assert np.allclose(mixed[2, 0], share * 100 + (1 - share) * 50)
    assert torch.isnan(truth[1, :, 0, 0]).all()
    assert torch.isnan(truth[2, :, 0, 0]).all()
    assert not torch.isnan(truth[3]).any()
    assert torch.allclose(truth[3], probabilities(labels[3], 2))  # both have the same square


def test_mixing_has_its_probability_and_needs_two_patches():
    images, labels = batch()
    torch.manual_seed(0)
    for some in (images, images[:1]):
        p = 0.0 if len(some) > 1 else 1.0
        mixed, truth, _ = mix_batch(
            some, labels[: len(some)], ONES, MixBatchesConfig(p=p), classes=2
        )
        assert mixed is some
        assert torch.equal(truth, labels[: len(some)])


def test_pixel_weights_are_mixed_and_patch_weights_are_not():
    images, labels = batch()
    labels += 1
    weights = torch.arange(4.0).reshape(4, 1, 1).expand(4, 20, 30).clone()
    torch.manual_seed(3)
    mixed, _, moved = mix_batch(images, labels, weights, MixBatchesConfig(p=1), classes=9)
    assert torch.equal(moved * 50, mixed[:, 0].float())
    mixup = MixBatchesConfig(kind="mixup", p=1)
    mixed, _, moved = mix_batch(images, labels, weights, mixup, classes=9)
    assert torch.allclose(moved * 50, mixed[:, 0])
    assert torch.equal(
        mix_batch(images, labels, weights[:, 0, 0], mixup, classes=9)[2], weights[:, 0, 0]
    )
