"""Owns options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_seg.shard import Shard

if TYPE_CHECKING:
    from wsi_seg.masks.inside import Inside
    from wsi_seg.store import Stores

TruthOption = Annotated[Path, typer.Option(help="Collection of slides with ground-truth labels.")]

LabelOption = Annotated[str, typer.Option(help="Name of the ground-truth label.")]

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change one key of the recipe, such as train.epochs=3; may be repeated.",
        show_default="the recipe as it is",
    ),
]

VolumesOption = Annotated[
    list[Path],
    typer.Option(help="Volume file (mhd, nii) of the slices; repeat the option for each volume."),
]

ShardOption = Annotated[
    str | None,
    typer.Option(
        help="Share of the work, such as 3/16 for the third of 16 processes; auto reads it from "
        "SLURM, Kubernetes or torchrun.",
        show_default="all work",
    ),
]


OnlyOption = Annotated[
    str | None,
    typer.Option(
        help="Slides to process: a pattern of names, such as case-1*, or a csv file with a column "
        "slide.",
        show_default="all",
    ),
]


InsideOption = Annotated[
    str | None,
    typer.Option(
        help="Part of each slide: a class of its annotations, such as tumour, or a GeoJSON file of "
        "polygons.",
        show_default="whole slides",
    ),
]

BoxOption = Annotated[
    str | None,
    typer.Option(
        help="Part of each slide: X,Y,WIDTH,HEIGHT in level-0 pixels.", show_default="whole slides"
    ),
]


def inside_of(inside: str | None, bbox: str | None) -> "Inside | None":
    """Parse --inside and --bbox."""
    if inside is None and bbox is None:
        return None
    from wsi_seg.masks.inside import Inside

    return Inside.parse(inside, bbox)


def only_some[S: "Stores"](stores: S, only: str | None) -> S:
    """Select slides of a collection by --only."""
    from wsi_seg.selection import Selection

    return stores if only is None else stores.only(Selection.parse(only).pick(stores.names()))


def shard_of(text: str | None) -> Shard | None:
    """Parse --shard."""
    return None if text is None else Shard.parse(text)
