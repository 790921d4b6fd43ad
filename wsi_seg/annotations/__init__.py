"""Owns reading annotations: structures outlined on slides by people or programs."""

from wsi_seg.annotations.model import Annotation, Annotations, AnnotationSets
from wsi_seg.annotations.read import read_annotations, read_for_slides

__all__ = ["Annotation", "AnnotationSets", "Annotations", "read_annotations", "read_for_slides"]
