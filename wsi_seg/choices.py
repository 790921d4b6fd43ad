"""Owns the words that options are chosen from, each list once.

Here they need no library, so that the command line offers them without loading what they choose.
"""

from typing import Literal

# How the pixels of a store are encoded; see `ingest.plan.Codec`.
CodecName = Literal["auto", "verbatim", "zstd", "jpeg", "jpegxl"]

# What slides are named by; see `ingest.names`.
NamesBy = Literal["stem", "path"]

# How run-length encoded masks count; see `annotations.rle`.
Dialect = Literal["relative", "absolute"]

# How overlapping tiles are merged; see `inference.blend`.
Blend = Literal["gaussian", "linear", "constant", "crop"]

# Test-time augmentation: the views that are predicted and averaged; see `predict.tta`.
Tta = Literal["none", "hflip", "flips", "d4"]

# Arithmetic of the forward pass; see `predict.device`.
Precision = Literal["auto", "fp32", "bf16", "fp16"]

# Whether networks are compiled before they run.
Compile = Literal["auto", "on", "off"]

# What is written of a prediction.
Save = Literal["probabilities", "labels", "both"]

# How the members of an ensemble become one prediction; see `predict.combine`.
Mode = Literal["mean", "weighted", "geometric", "vote"]

# How probabilities are calibrated; see `evaluation.recalibrate`.
Method = Literal["temperature", "quantile"]

# Unit of the areas of a rule, and what its least area is counted for; see `postprocess.rule`.
Unit = Literal["um2", "px"]
Scope = Literal["image", "object"]

# What QuPath makes of exported objects; see `exporting.geojson`.
ObjectType = Literal["auto", "annotations", "detections"]

# Versions of OME-Zarr that are exported; see `exporting.omezarr`.
Ngff = Literal["0.4", "0.5"]
