"""Owns the options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

TruthOption = Annotated[
    Path, typer.Option(help="Collection of the slides, which holds the true labels.")
]

LabelOption = Annotated[str, typer.Option(help="Name of the label that is the truth.")]

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
