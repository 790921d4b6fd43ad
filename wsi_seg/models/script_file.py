"""Owns networks in TorchScript files, which can execute code and are loaded only if trusted."""

import warnings
from pathlib import Path
from typing import Any

import torch

from wsi_seg.errors import CheckpointError
from wsi_seg.models.file_network import FileNetwork, ImageForm


class ScriptNetwork(FileNetwork):
    """A network from a TorchScript file.

    Parameters
    ----------
    path
        Path of the file.
    device
        Device on which to run the network.

    Raises
    ------
    CheckpointError
        If the file is not TorchScript.
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
                f"cannot read {path} ({reason}); expected TorchScript; convert plain weights with "
                "`wsi-seg import-weights`"
            ) from error
        self._module = (module.eval(),)  # in a tuple, as in `ExportedNetwork`
        values = [*module.parameters(), *module.buffers()]
        self.parameters_count = sum(value.numel() for value in values)

    def run(self, images: torch.Tensor) -> object:
        """Run one batch; see `FileNetwork.run`."""
        return self._module[0](images)
