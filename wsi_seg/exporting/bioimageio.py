"""Owns bioimage.io model archives: a description, weights and test tensors.

The description follows version 0.5 of the specification, which QuPath, ilastik, deepImageJ and
bioimageio.core read. It is written as plain YAML; our tests validate it with bioimageio.core.
"""

import hashlib
import io
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from wsi_seg.models import ModelCard

_FORMAT = "0.5.4"

# The specification requires a citation; the paper of the model zoo is the default.
_CITATION = {
    "text": "Ouyang et al. BioImage Model Zoo: a community-driven resource (2022)",
    "doi": "10.1101/2022.06.07.495102",
}

# ONNX operator set of the exported models.
OPSET = 20


@dataclass(frozen=True, slots=True)
class Credits:
    """Attribution of a model.

    Parameters
    ----------
    name
        Name of the model; None derives it from the names of its classes.
    authors
        Names of the authors.
    licence
        SPDX identifier.

    Examples
    --------
    >>> Credits(name="Nuclei", authors=("A. Lab",)).licence
    'CC-BY-4.0'
    """

    name: str | None = None
    authors: tuple[str, ...] = ("unknown",)
    licence: str = "CC-BY-4.0"


def write_bioimageio(
    path: Path,
    card: ModelCard,
    script: Path,
    onnx: Path,
    test_input: NDArray[np.float32],
    test_output: NDArray[np.float32],
    *,
    multiple: int | None,
    credits: Credits,
) -> None:
    """Write a model archive.

    Parameters
    ----------
    path
        ``.zip`` file to write.
    card
        Model card of the packed network.
    script, onnx
        Weights of the network, as TorchScript and as ONNX.
    test_input, test_output
        Images ``(1, C, H, W)`` of 0 to 255, and their probabilities ``(1, outputs, H, W)``.
    multiple
        The sides of images must be a multiple of it; None if they must be those of ``test_input``.
    credits
        Name, authors and licence.
    """
    parts = {
        "weights.pt": script.read_bytes(),
        "weights.onnx": onnx.read_bytes(),
        "test_input.npy": _npy(test_input),
        "test_output.npy": _npy(test_output),
        "README.md": _readme(card).encode(),
    }
    files = {
        name: {"source": name, "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in parts.items()
    }
    side = test_input.shape[-1]
    size: object = side if multiple is None else {"min": 2 * multiple, "step": multiple}
    description = _metadata(card, credits) | {
        "documentation": files["README.md"],
        "inputs": [_input(card, size, files["test_input.npy"])],
        "outputs": [_output(card, files["test_output.npy"])],
        "weights": {
            "torchscript": files["weights.pt"]
            | {"pytorch_version": torch.__version__.partition("+")[0]},
            "onnx": files["weights.onnx"] | {"opset_version": OPSET, "parent": "torchscript"},
        },
    }
    # The JSON round trip copies shared objects, so that YAML has no anchors and aliases.
    text = yaml.safe_dump(json.loads(json.dumps(description)), sort_keys=False, allow_unicode=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rdf.yaml", text)
        for name, content in parts.items():
            archive.writestr(name, content)


def _metadata(card: ModelCard, credits: Credits) -> dict[str, object]:
    classes = ", ".join(card.classes.names)
    return {
        "type": "model",
        "format_version": _FORMAT,
        "name": _model_name(credits.name or f"segmentation of {classes}"),
        "description": f"Probabilities of {classes} for each pixel, made with wsi_seg."[:1024],
        "authors": [{"name": author} for author in credits.authors],
        "cite": [_CITATION],
        "license": credits.licence,
        "tags": ["semantic-segmentation", "histology", "2d", "pytorch"],
    }


def _input(card: ModelCard, size: object, file: object) -> dict[str, object]:
    names = ["red", "green", "blue"]
    if card.in_channels != len(names):
        names = [f"channel{number}" for number in range(card.in_channels)]
    return {
        "id": "image",
        "axes": [{"type": "batch"}, _channels(names), *(_space(n, size, card.mpp) for n in "yx")],
        "data": {"type": "float32", "range": [0.0, 255.0]},
        "test_tensor": file,
    }


def _output(card: ModelCard, file: object) -> dict[str, object]:
    sizes = [(name, {"tensor_id": "image", "axis_id": name}) for name in "yx"]
    background = ["background"] * card.classes.is_exclusive
    names = background + [_channel_name(name) for name in card.classes.names]
    return {
        "id": "probabilities",
        "axes": [
            {"type": "batch"},
            _channels(names),
            *(_space(name, size, card.mpp) for name, size in sizes),
        ],
        "data": {"type": "float32", "range": [0.0, 1.0]},
        "test_tensor": file,
    }


def _channels(names: list[str]) -> dict[str, object]:
    return {"type": "channel", "channel_names": names}


def _space(name: str, size: object, mpp: float | None) -> dict[str, object]:
    scale = {} if mpp is None else {"unit": "micrometer", "scale": mpp}
    return {"type": "space", "id": name, "size": size} | scale


def _channel_name(name: str) -> str:
    """Turn the name of a class into an identifier."""
    word = re.sub(r"\W+", "_", name).strip("_").lower()
    return word if word and not word[0].isdigit() else f"class_{word}"


def _model_name(name: str) -> str:
    """Replace the characters that names of models may not have."""
    return re.sub(r"[^\w +()-]", " ", name).strip()[:128]


def _npy(array: NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _readme(card: ModelCard) -> str:
    mpp = "unknown" if card.mpp is None else f"{card.mpp:g} um per pixel"
    scores = "".join(f"| {name} | {value:.4g} |\n" for name, value in card.scores.items())
    table = f"\n| score | value |\n|---|---|\n{scores}" if scores else ""
    return (
        f"# Segmentation of {', '.join(card.classes.names)}\n\n"
        f"Input: RGB of 0 to 255 at {mpp}; tiles of {card.tile_px} pixels. Output: the probability "
        "of each class for each pixel. The model includes normalisation and activation.\n\n"
        "## Validation\n\n"
        "The scores were measured on images held out from training; validate the model on your own "
        f"images before you rely on it.\n{table}"
    )
