"""Owns networks in TorchScript files, whose reading can run code, so they need the user's trust."""

import warnings
from pathlib import Path
from typing import Any

import torch

from wsi_seg.errors import CheckpointError
from wsi_seg.models.file_network import FileNetwork, ImageForm


class ScriptNetwork(FileNetwork):
    """A network of a TorchScript file.

    Parameters
    ----------
    path
        The file.
    device
        Where it computes.

    Raises
    ------
    CheckpointError
        If it is not TorchScript.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        super().__init__(path, ImageForm())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch recommends torch.export
                module: Any = torch.jit.load(path, map_location=device)
        except (OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"cannot read {path} ({reason}); expected TorchScript, or for weights alone: "
                "wsi-seg import-weights"
            ) from error
        self._module = (module.eval(),)  # a tuple, see `ExportedNetwork`
        values = [*module.parameters(), *module.buffers()]
        self.parameters_count = sum(value.numel() for value in values)

    def run(self, images: torch.Tensor) -> object:
        """Run one batch; see `FileNetwork.run`."""
        return self._module[0](images)
