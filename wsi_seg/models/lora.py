"""Owns low-rank adaptation (LoRA; Hu et al., 2021): few weights that learn in place of many."""

import math

import torch
from torch import nn
from torch.nn.utils import parametrize

_PARTS = ".parametrizations."


class LowRank(nn.Module):
    """Adds a product of two thin matrices to a weight that does not learn; at first it is 0.

    Parameters
    ----------
    weight
        ``(out, in)``.
    rank
        Of the product.
    """

    def __init__(self, weight: torch.Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.down = nn.Parameter(torch.empty(rank, columns))
        self.up = nn.Parameter(torch.zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Give the weight that the layer uses."""
        return weight + self.up @ self.down


def add_low_rank(encoder: nn.Module, rank: int) -> int:
    """Let only products of low rank learn in the linear layers of an encoder.

    Returns
    -------
    int
        Linear layers; 0 where it has none, and then nothing learns.
    """
    encoder.requires_grad_(requires_grad=False)
    layers = [module for module in encoder.modules() if isinstance(module, nn.Linear)]
    for layer in layers:
        found = LowRank(layer.weight, min(rank, *layer.weight.shape))
        parametrize.register_parametrization(layer, "weight", found)
    return len(layers)


def plain_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """State of a network in which the products are added to their weights."""
    state = network.state_dict()
    plain = {name: tensor for name, tensor in state.items() if _PARTS not in name}
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and parametrize.is_parametrized(module, "weight"):
            plain[f"{name}.weight"] = module.weight.detach()
    order = [name.replace(_PARTS, ".").removesuffix(".original") for name in state]
    return {name: plain[name] for name in order if name in plain}
