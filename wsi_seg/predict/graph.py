"""Owns CUDA graphs: a network of one shape that is launched in one call, not kernel by kernel."""

from collections.abc import Callable

import torch

# Passes before the capture: libraries choose kernels and allocate in the first ones.
_WARM = 3


class GraphedNetwork:
    """Network whose kernels are recorded, and replayed while the shape of tiles stays the same.

    Launching hundreds of kernels from Python takes the host milliseconds a batch, in which other
    threads want to decode and encode; a replay takes microseconds. Kernels and results are the
    same.

    Parameters
    ----------
    network
        In eval mode, on a CUDA device; it must not wait for the device inside.
    """

    def __init__(self, network: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._network = network
        self._graph: torch.cuda.CUDAGraph | None = None
        self._input = self._output = torch.empty(0)

    def __call__(self, tiles: torch.Tensor) -> torch.Tensor:
        """Compute as the network does; the next call overwrites the result."""
        if self._graph is None or tiles.shape != self._input.shape:
            self._graph = self._captured(tiles)
        self._input.copy_(tiles)
        self._graph.replay()
        return self._output

    def _captured(self, tiles: torch.Tensor) -> torch.cuda.CUDAGraph:
        """Record the network on tiles of this shape."""
        self._graph = None  # its memory is given back first
        self._input = tiles.clone(memory_format=torch.contiguous_format)
        current, side = torch.cuda.current_stream(tiles.device), torch.cuda.Stream(tiles.device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(_WARM):
                self._network(self._input)
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._output = self._network(self._input)
        return graph
