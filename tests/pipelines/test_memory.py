"""A step of every full recipe, in every phase, needs less than 24 GB; no memory is taken for it."""

from pathlib import Path

import pytest
import torch

from wsi_seg.config import load_recipe
from wsi_seg.models import NetworkSpec, build_network
from wsi_seg.reading.view import View

FOLDER = Path(__file__).parents[2] / "pipelines"

# Weights, gradients, two states of the optimiser and an average, in float32.
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
    """Weights and their copies, and what autograd keeps of one batch in float32.

    The network is on torch's meta device, which computes shapes alone.
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
            kept[storage._cdata] = storage  # and so its place is not given to another
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
        # A fifth is left for the workspace of layers, and for what loads patches.
        assert bytes_of_a_step(stage) < 0.8 * 24e9, stage.patch_px
