"""Owns CUDA graphs: launching a network for one input shape in a single call."""

from collections.abc import Callable

import torch

# Warm-up passes before capture: libraries select kernels and allocate memory in the first ones.
_WARM_UP = 3


class GraphedNetwork:
    """Network whose kernels are captured and replayed while the shape of tiles stays the same.

    Launching hundreds of kernels from Python blocks the host for milliseconds per batch, in which
    other threads could decode and encode; a replay takes microseconds. Kernels and results are the
    same.

    Parameters
    ----------
    network
        Network in eval mode on a CUDA device; its forward must not synchronise with the device.
    """

    def __init__(self, network: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._network = network
        self._graph: torch.cuda.CUDAGraph | None = None
        self._input = self._output = torch.empty(0)

    def __call__(self, tiles: torch.Tensor) -> torch.Tensor:
        """Run the network; the next call overwrites the result."""
        if self._graph is None or tiles.shape != self._input.shape:
            self._graph = self._capture(tiles)
        self._input.copy_(tiles)
        self._graph.replay()
        return self._output

    def _capture(self, tiles: torch.Tensor) -> torch.cuda.CUDAGraph:
        """Capture the network for tiles of this shape."""
        self._graph = None  # frees its memory
        self._input = tiles.clone(memory_format=torch.contiguous_format)
        current, side = torch.cuda.current_stream(tiles.device), torch.cuda.Stream(tiles.device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self._network(self._input)
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._output = self._network(self._input)
        return graph
