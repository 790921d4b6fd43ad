"""Owns promptable models (SAM; Kirillov et al., 2023), exported as an ONNX encoder and decoder.

The encoder runs once per image. The decoder takes ``image_embeddings``, ``point_coords``,
``point_labels``, ``mask_input``, ``has_mask_input`` and ``orig_im_size``, and returns ``masks``
(logits) and ``iou_predictions``.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_seg.errors import CheckpointError
from wsi_seg.models.onnx_file import onnx_session

# SAM's normalisation of pixels 0 to 255; exports with (height, width, colour) input include it.
_MEAN = np.array([123.675, 116.28, 103.53], dtype=np.float32)
_STD = np.array([58.395, 57.12, 57.375], dtype=np.float32)

_LOW_RES_PX = 256
_INPUTS = (
    "image_embeddings",
    "point_coords",
    "point_labels",
    "mask_input",
    "has_mask_input",
    "orig_im_size",
)


class _Session(Protocol):
    """Part of onnxruntime's InferenceSession that is used here."""

    def run(
        self, outputs: list[str], inputs: dict[str, NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]: ...


class Promptable:
    """A promptable model from two ONNX files.

    Parameters
    ----------
    decoder
        File of the decoder; the encoder is next to it, with ``encoder`` in place of ``decoder`` in
        its name.

    Raises
    ------
    CheckpointError
        If a file is missing, cannot be read, or has other inputs.
    MissingLibraryError
        If onnxruntime is not installed.

    Examples
    --------
    >>> Promptable(Path("sam_decoder.onnx"))  # doctest: +SKIP
    """

    def __init__(self, decoder: Path) -> None:
        encoder = decoder.with_name(decoder.name.replace("decoder", "encoder"))
        if encoder == decoder or not decoder.is_file() or not encoder.is_file():
            raise CheckpointError(
                f"got {decoder}; expected the decoder of a promptable model, such as "
                "sam_decoder.onnx, and its sam_encoder.onnx next to it"
            )
        self._encoder: Any = onnx_session(encoder, torch.device("cpu"))
        self._decoder: Any = onnx_session(decoder, torch.device("cpu"))
        names = [one.name for one in self._decoder.get_inputs()]
        if sorted(names) != sorted(_INPUTS):
            raise CheckpointError(
                f"{decoder} takes {', '.join(names)}; expected {', '.join(_INPUTS)}"
            )

    def mask(self, pixels: NDArray[np.uint8], x: float, y: float) -> NDArray[np.bool_]:
        """Predict the mask of the object at a point.

        Parameters
        ----------
        pixels
            ``(1024, 1024, 3)`` uint8 RGB.
        x, y
            The point, in pixels.

        Returns
        -------
        NDArray[np.bool_]
            ``(1024, 1024)``: the mask with the highest predicted IoU.

        Raises
        ------
        CheckpointError
            If the model cannot be run.
        """
        inputs = {
            "image_embeddings": self._embed(pixels),
            # The export expects a padding point with label -1 if there is no box.
            "point_coords": np.array([[[x, y], [0, 0]]], dtype=np.float32),
            "point_labels": np.array([[1, -1]], dtype=np.float32),
            "mask_input": np.zeros((1, 1, _LOW_RES_PX, _LOW_RES_PX), dtype=np.float32),
            "has_mask_input": np.zeros(1, dtype=np.float32),
            "orig_im_size": np.array(pixels.shape[:2], dtype=np.float32),
        }
        masks, ious = _run(self._decoder, ["masks", "iou_predictions"], inputs)
        mask: NDArray[np.bool_] = masks[0, int(ious[0].argmax())] > 0
        return mask

    def _embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        (form,) = self._encoder.get_inputs()
        image = pixels.astype(np.float32)
        if len(form.shape) == 4:
            image = ((image - _MEAN) / _STD).transpose(2, 0, 1)[None]
        (embedding,) = _run(
            self._encoder, [self._encoder.get_outputs()[0].name], {form.name: image}
        )
        return embedding


def _run(
    session: _Session, outputs: list[str], inputs: dict[str, NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    try:
        found: list[NDArray[np.float32]] = session.run(outputs, inputs)
    except Exception as error:  # onnxruntime's exceptions have no other common base class
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"the promptable model cannot be run: {reason}") from error
    return found
