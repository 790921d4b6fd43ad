"""Owns low-rank adaptation (LoRA; Hu et al., 2021) of linear layers."""

import math

import torch
from torch import nn
from torch.nn.utils import parametrize

_PARTS = ".parametrizations."


class LowRank(nn.Module):
    """Parametrization that adds a low-rank product, initially 0, to a frozen weight.

    Parameters
    ----------
    weight
        Weight of the layer, ``(out, in)``.
    rank
        Rank of the product.
    """

    def __init__(self, weight: torch.Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.down = nn.Parameter(torch.empty(rank, columns))
        self.up = nn.Parameter(torch.zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the adapted weight."""
        return weight + self.up @ self.down


def add_low_rank(encoder: nn.Module, rank: int) -> int:
    """Freeze an encoder and add trainable low-rank adapters to its linear layers.

    Returns
    -------
    int
        Number of linear layers; with 0, nothing is trainable.
    """
    encoder.requires_grad_(requires_grad=False)
    layers = [module for module in encoder.modules() if isinstance(module, nn.Linear)]
    for layer in layers:
        found = LowRank(layer.weight, min(rank, *layer.weight.shape))
        parametrize.register_parametrization(layer, "weight", found)
    return len(layers)


def merged_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the state of a network with its low-rank adapters merged into the weights."""
    state = network.state_dict()
    plain = {name: tensor for name, tensor in state.items() if _PARTS not in name}
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and parametrize.is_parametrized(module, "weight"):
            plain[f"{name}.weight"] = module.weight.detach()
    order = [name.replace(_PARTS, ".").removesuffix(".original") for name in state]
    return {name: plain[name] for name in order if name in plain}
