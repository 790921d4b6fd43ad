"""Owns networks in ONNX files. No other module imports onnxruntime."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.dlpack import from_dlpack

from wsi_seg.cores import available_cores
from wsi_seg.errors import CheckpointError, ConfigError
from wsi_seg.extras import naming_extra
from wsi_seg.models.file_network import FileNetwork, ImageForm

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_CUDA = "CUDAExecutionProvider"

# Torch dtypes by their ONNX names.
_DTYPES = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(bfloat16)": torch.bfloat16,
    "tensor(double)": torch.float64,
    "tensor(uint8)": torch.uint8,
}


def onnx_session(
    path: Path, device: torch.device, *, profile: Path | None = None
) -> "InferenceSession":
    """Open an ONNX file in onnxruntime; see `OnnxNetwork`.

    Raises
    ------
    CheckpointError
        If onnxruntime cannot read the file.
    ConfigError
        If onnxruntime has no provider for the device.
    MissingLibraryError
        If onnxruntime is not installed.
    """
    with naming_extra(str(path)):
        import onnxruntime
    if device.type == "cuda" and _CUDA not in onnxruntime.get_available_providers():
        raise ConfigError(
            f"{path} cannot run on {device}: the installed onnxruntime has no CUDA provider; "
            "install onnxruntime-gpu instead, or use --device cpu"
        )
    options = onnxruntime.SessionOptions()
    # Waiting threads must not spin, because readers and writers need the cores.
    options.intra_op_num_threads, options.inter_op_num_threads = available_cores(), 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile / "profile")
    on_cuda = (_CUDA, {"device_id": str(device.index or 0)})
    providers = [on_cuda] if device.type == "cuda" else ["CPUExecutionProvider"]
    try:
        session: InferenceSession = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions have no other common base class
        # The message starts with source locations and ends with the reason.
        reason = " ".join(str(error).split())[-300:]
        raise CheckpointError(f"cannot read ONNX file {path}: {reason}") from error
    return session


class OnnxNetwork(FileNetwork):
    """A network from an ONNX file.

    Parameters
    ----------
    path
        Path of the file; large networks have their weights in files next to it.
    device
        Device on which to run the network.
    profile
        Folder for a profile of the run; None disables profiling.

    Raises
    ------
    CheckpointError
        If onnxruntime cannot read the file, or the network does not take one image.
    ConfigError
        If onnxruntime has no provider for the device.
    MissingLibraryError
        If onnxruntime is not installed.
    """

    def __init__(self, path: Path, device: torch.device, *, profile: Path | None = None) -> None:
        self._session: Any = onnx_session(path, device, profile=profile)
        super().__init__(path, _form(path, self._session.get_inputs()))
        self.device = device
        data = path.with_name(path.name + ".data")
        sizes = [file.stat().st_size for file in (path, data) if file.is_file()]
        self.parameters_count = sum(sizes) // 4  # upper bound: file size in float32 values

    @property
    def embedded_card(self) -> str | None:
        """Card in the metadata of the file, as JSON; None if there is none."""
        found = self._session.get_modelmeta().custom_metadata_map.get("wsi_seg")
        return None if found is None else str(found)

    def run(self, images: torch.Tensor) -> object:
        """Run one batch without copying it to another device; see `FileNetwork.run`."""
        binding = self._session.io_binding()
        if self.device.type == "cuda":  # onnxruntime uses its own stream
            torch.cuda.current_stream(self.device).synchronize()
        place = (self.device.type, self.device.index or 0)
        numpy_type = torch.empty(0, dtype=images.dtype).numpy().dtype
        name = self._session.get_inputs()[0].name
        binding.bind_input(name, *place, numpy_type, tuple(images.shape), images.data_ptr())
        for output in self._session.get_outputs():
            binding.bind_output(output.name, *place)
        self._session.run_with_iobinding(binding)
        return [from_dlpack(found) for found in binding.get_outputs()]

    def largest_values(self, images: torch.Tensor) -> int:
        """Run once with profiling, and return the number of values of the largest layer output."""
        self.forward(images)
        file = Path(self._session.end_profiling())
        events = json.loads(file.read_text(encoding="utf-8"))
        sizes = [int(event.get("args", {}).get("output_size", 0)) for event in events]
        return max(sizes, default=0) // 4


def measure_onnx(path: Path, images: torch.Tensor) -> int:
    """Measure the number of values of the largest layer output for images ``(B, C, H, W)``."""
    with TemporaryDirectory() as folder:
        network = OnnxNetwork(path, torch.device("cpu"), profile=Path(folder))
        return network.largest_values(images)


def _form(path: Path, inputs: Sequence[Any]) -> ImageForm:
    if len(inputs) != 1:
        names = ", ".join(one.name for one in inputs)
        raise CheckpointError(f"{path} takes {len(inputs)} inputs ({names}); expected one image")
    sizes = [side if isinstance(side, int) else None for side in inputs[0].shape]
    return ImageForm.of(sizes, _DTYPES.get(inputs[0].type), path)
