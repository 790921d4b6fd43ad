"""Owns ``wsi-seg next``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb
from wsi_seg.cli.options import LabelOption


def next_(
    slides: Annotated[Path, typer.Argument(help="Collection made by `wsi-seg tile`.")],
    predictions: Annotated[
        Path, typer.Argument(help="Predictions of those slides, with probabilities.")
    ],
    label: LabelOption = "annotations",
    count: Annotated[int, typer.Option(min=1, help="Number of places at most.")] = 20,
    side_um: Annotated[
        float, typer.Option(min=1, help="Side of a place in um; pixels where mpp is unknown.")
    ] = 256.0,
    geojson: Annotated[
        Path | None,
        typer.Option(
            help="Folder for a file of rectangles for each slide.", show_default="no files"
        ),
    ] = None,
    json_mode: JsonFlag = False,
) -> None:
    """Suggest regions to annotate where the model is uncertain.

    Places are ranked by uncertainty times area, and each differs from those before it. Areas that
    are already annotated do not count. The viewer lists the same places, slide by slide.

    For example:

      wsi-seg infer store.zarr --save both
      wsi-seg next store.zarr pred.zarr
      wsi-seg next store.zarr pred.zarr --count 50 --geojson places
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.evaluation.next_places import next_places
        from wsi_seg.store import open_collection, open_predictions

        report = next_places(
            open_predictions(predictions),
            open_collection(slides),
            label=label,
            side_um=side_um,
            count=count,
            progress=terminal.progress,
        )
        terminal.table(("", "slide", "x, y, x_end, y_end", "uncertainty", "um2"), report.rows())
        files = [] if geojson is None else report.write_geojson(geojson)
        report.require_whole()
        terminal.next_command("wsi-seg", "view", slides, predictions)
        return {**report.to_json(), "files": list(map(str, files))}

    run_verb(body, json_mode)
