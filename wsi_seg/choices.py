"""Owns the allowed values of options, each defined once.

This module imports no library, so that the command line starts without loading them.
"""

from typing import Literal

# Codecs of stored pixels; see `ingest.plan.Codec`.
CodecName = Literal["auto", "verbatim", "zstd", "jpeg", "jpegxl"]

# How slides are named; see `ingest.names`.
NamesBy = Literal["stem", "path"]

# Dialects of run-length encoded masks; see `annotations.rle`.
Dialect = Literal["relative", "absolute"]

# How overlapping tiles are merged; see `inference.blend`.
Blend = Literal["gaussian", "linear", "constant", "crop"]

# Test-time augmentation: views that are predicted and averaged; see `predict.tta`.
Tta = Literal["none", "hflip", "flips", "d4"]

# Precision of the forward pass; see `predict.device`.
Precision = Literal["auto", "fp32", "bf16", "fp16"]

# Whether networks are compiled with torch.compile.
Compile = Literal["auto", "on", "off"]

# What a prediction writes.
Save = Literal["probabilities", "labels", "both"]

# How the predictions of an ensemble's members are combined; see `predict.combine`.
Mode = Literal["mean", "weighted", "geometric", "vote"]

# How probabilities are calibrated; see `evaluation.recalibrate`.
Method = Literal["temperature", "quantile"]

# Unit of the areas of a rule, and whether its minimum is per image or object; `postprocess.rule`.
Unit = Literal["um2", "px"]
Scope = Literal["image", "object"]

# QuPath type of exported objects; see `exporting.geojson`.
ObjectType = Literal["auto", "annotations", "detections"]

# OME-Zarr versions of exports; see `exporting.omezarr`.
Ngff = Literal["0.4", "0.5"]
