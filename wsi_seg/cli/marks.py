"""Owns ``wsi-seg marks``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb
from wsi_seg.cli.rules import chosen_rule, rule_file, rule_line


def marks(
    prediction: Annotated[Path, typer.Argument(help="Prediction of the slices of volumes.")],
    volumes: Annotated[
        list[Path], typer.Option(help="Volume file; repeat the option for each volume.")
    ],
    out: Annotated[Path, typer.Option(help="csv file to write.")] = Path("marks.csv"),
    rule: Annotated[
        Path | None,
        typer.Option(help="Rule; default: run/rule.json, if it is, else what infer decided."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Join px above this instead.")
    ] = None,
    apart_mm: Annotated[
        float, typer.Option(min=0, help="Of marks nearer than this, only the likelier stays.")
    ] = 0.0,
    json_mode: JsonFlag = False,
) -> None:
    """Join objects of neighbouring slices, and write their centres in mm for `wsi-seg froc`.

    For example:

      wsi-seg marks pred.zarr --volumes a.mhd --volumes b.mhd --out marks.csv
      wsi-seg froc marks.csv --truth annotations.csv
    """
    file = rule_file(rule, threshold)

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.ct.candidates import write_marks
        from wsi_seg.slides.slide import slide_name
        from wsi_seg.slides.volume import volume_grid
        from wsi_seg.store import open_collection

        chosen = chosen_rule(file, threshold, 0.0)
        if chosen is not None:
            terminal.say(rule_line(file, chosen))
        report = write_marks(
            open_collection(prediction),
            {slide_name(path): volume_grid(path) for path in volumes},
            out,
            rule=chosen,
            apart_mm=apart_mm,
            progress=terminal.progress,
        )
        terminal.say("\n".join(report.lines()))
        terminal.next_command("wsi-seg", "froc", str(out), "--truth", "annotations.csv")
        return report.to_json()

    # A rule's decision is kept as a label of the prediction.
    decides = (file, threshold) != (None, None)
    run_verb(body, json_mode, writes=prediction if decides else None)
