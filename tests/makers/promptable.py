"""Owns a stand-in for a promptable model: it takes what is dark for what was clicked."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_promptable(folder: Path) -> Path:
    """Write ``sam_encoder.onnx`` and ``sam_decoder.onnx``; gives the decoder."""
    folder.mkdir(exist_ok=True)
    kind = TensorProto.FLOAT

    def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    def save(name: str, nodes, inputs, outputs, constants=()) -> Path:
        held = [numpy_helper.from_array(array, key) for key, array in constants]
        graph = helper.make_graph(nodes, "standin", inputs, outputs, held)
        opset = helper.make_opsetid("", 17)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
        onnx.save(model, folder / name)
        return folder / name

    save(
        "sam_encoder.onnx",
        [helper.make_node("ReduceMean", ["image"], ["image_embeddings"], axes=[1], keepdims=1)],
        [value("image", 1, 3, 1024, 1024)],
        [value("image_embeddings", 1, 1, 1024, 1024)],
    )
    asked = [
        value("image_embeddings", 1, 1, 1024, 1024),
        value("point_coords", 1, "points", 2),
        value("point_labels", 1, "points"),
        value("mask_input", 1, 1, 256, 256),
        value("has_mask_input", 1),
        value("orig_im_size", 2),
    ]
    # The first mask is what is bright, the second, which is trusted more, what is dark.
    return save(
        "sam_decoder.onnx",
        [
            helper.make_node("Neg", ["image_embeddings"], ["dark"]),
            helper.make_node("Concat", ["image_embeddings", "dark"], ["masks"], axis=1),
            helper.make_node("Identity", ["trust"], ["iou_predictions"]),
        ],
        asked,
        [value("masks", 1, 2, 1024, 1024), value("iou_predictions", 1, 2)],
        [("trust", np.array([[0.1, 0.9]], dtype=np.float32))],
    )
