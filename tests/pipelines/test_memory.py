"""A step of every full recipe, in every phase, needs less than 24 GB, computed and on a GPU."""

from pathlib import Path

import lightning
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from wsi_seg.config import load_recipe
from wsi_seg.learn.fit import build_learner
from wsi_seg.learn.pace import training_precision
from wsi_seg.learn.split import Split
from wsi_seg.learn.task import SegmentationTask
from wsi_seg.models import NetworkSpec, build_network
from wsi_seg.reading.view import View

FOLDER = Path(__file__).parents[2] / "pipelines"

# Weights, gradients, two optimiser states and an average, in float32.
_COPIES = 5 * 4

NETWORKS = [
    ("siim_pneumothorax", ()),
    ("siim_pneumothorax", ("model.encoder=resnet50",)),
    (
        "siim_pneumothorax",
        ("model.encoder=se_resnext50_32x4d", "model.decoder_attention=scse"),
    ),
    ("hubmap_kidney", ()),
    ("hubmap_kidney", ("model.encoder=resnext50_32x4d",)),
    ("stas_lung", ()),
    ("stas_lung", ("model.encoder=tu-tf_efficientnetv2_m.in21k_ft_in1k",)),
    (
        "stas_lung",
        ("model.encoder=tu-eca_nfnet_l2.ra3_in1k", "train.batch_size=4", "train.accumulate=6"),
    ),
    ("lung_nodule", ()),
]


def bytes_of_a_step(stage):
    """Bytes of the weights and their copies, and of what autograd saves for one batch in float32.

    The network is on torch's meta device, which computes only shapes.
    """
    model = stage.model
    spec = NetworkSpec(
        model.architecture, model.encoder, View.of(stage).channels, stage.class_table.outputs,
        model.decoder_attention,
    )  # fmt: skip
    network = build_network(spec).train()
    count = sum(weight.numel() for weight in network.parameters())
    network = network.to("meta")
    own = {weight.untyped_storage()._cdata for weight in network.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # keeps the address from being reused
        return tensor

    side = stage.patch_px
    image = torch.zeros(stage.train.batch_size, spec.in_channels, side, side, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(image)
    return count * _COPIES + sum(storage.nbytes() for storage in kept.values())


@pytest.mark.pipelines
@pytest.mark.parametrize(
    ("task", "settings"), NETWORKS, ids=lambda one: "-".join(one) if isinstance(one, tuple) else one
)
def test_a_step_of_a_full_recipe_fits_into_24_gb(task, settings):
    for stage in load_recipe(FOLDER / task / "recipe.yaml", settings).stages:
        # A fifth is reserved for the workspace of layers, and for loading patches.
        assert bytes_of_a_step(stage) < 0.8 * 24e9, stage.patch_px


def memory_of_two_steps(stage, device):
    """Train two optimiser steps on noise, predict a batch, and return the peak bytes."""
    learner, card = build_learner(stage, Split((), ()), start=None)
    task = SegmentationTask(learner, card, stage, steps_per_epoch=2)
    train, side = stage.train, stage.patch_px
    count = 2 * train.accumulate * train.batch_size
    patches = TensorDataset(
        torch.randint(0, 256, (count, card.in_channels, side, side), dtype=torch.uint8),
        torch.randint(0, len(stage.classes) + 1, (count, side, side), dtype=torch.uint8),
        torch.ones(count),
    )
    trainer = lightning.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed" if training_precision(train.precision, device) == "bf16" else None,
        max_steps=2,
        accumulate_grad_batches=train.accumulate,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, DataLoader(patches, batch_size=train.batch_size))
    assert trainer.global_step == 2
    network = task.network.eval().to(device)
    with torch.inference_mode():
        network(torch.rand(train.batch_size, card.in_channels, side, side, device=device))
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("task", "settings"), NETWORKS, ids=lambda one: "-".join(one) if isinstance(one, tuple) else one
)
def test_a_gpu_of_24_gb_is_enough_for_a_full_recipe(task, settings):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device = torch.device("cuda", 0)
    whole = torch.cuda.get_device_properties(device).total_memory
    if whole < 24e9:
        pytest.skip("needs a GPU of 24 GB")
    recipe = load_recipe(FOLDER / task / "recipe.yaml", ("model.weights=null", *settings))
    torch.cuda.set_per_process_memory_fraction(24e9 / whole, device)
    try:
        for stage in recipe.stages:
            torch.cuda.reset_peak_memory_stats(device)
            assert 0 < memory_of_two_steps(stage, device) < 24e9
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
