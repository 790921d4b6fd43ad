"""Owns ``wsi-seg ct candidates``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb
from wsi_seg.cli.options import VolumesOption
from wsi_seg.cli.rules import RuleOption, ThresholdOption, chosen_rule, rule_file


def candidates(
    prediction: Annotated[Path, typer.Argument(help="Prediction of the slices of volumes.")],
    volumes: VolumesOption,
    out: Annotated[Path, typer.Option(help="csv file to write.")] = Path("candidates.csv"),
    rule: RuleOption = None,
    threshold: ThresholdOption = None,
    min_distance_mm: Annotated[
        float,
        typer.Option(
            min=0,
            help="Of candidates closer to each other than this many mm, keep the most probable "
            "one; 0 keeps all.",
        ),
    ] = 0.0,
    json_mode: JsonFlag = False,
) -> None:
    """Join objects of neighbouring slices to candidates in mm.

    Writes the centre and the maximum probability of each candidate in the format of LUNA16, for
    `wsi-seg ct froc`.

    For example:

      wsi-seg ct candidates pred.zarr --volumes a.mhd --volumes b.mhd
      wsi-seg ct froc candidates.csv --truth annotations.csv
    """
    file = rule_file(rule, threshold)

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.ct.candidates import write_candidates
        from wsi_seg.slides.slide import slide_name
        from wsi_seg.slides.volume import volume_grid
        from wsi_seg.store import open_predictions

        report = write_candidates(
            open_predictions(prediction),
            {slide_name(path): volume_grid(path) for path in volumes},
            out,
            rule=chosen_rule(terminal, file, threshold),
            min_distance_mm=min_distance_mm,
            progress=terminal.progress,
        )
        terminal.say("\n".join(report.lines()))
        terminal.next_command("wsi-seg", "ct", "froc", out, "--truth", "annotations.csv")
        return report.to_json()

    # The decision of a rule is written to the prediction.
    decides = (file, threshold) != (None, None)
    run_verb(body, json_mode, writes=prediction if decides else None)
