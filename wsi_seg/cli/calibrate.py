"""Owns ``wsi-seg calibrate``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.choices import Method
from wsi_seg.cli.console import JsonFlag, Terminal, run_verb
from wsi_seg.cli.options import LabelOption, TruthOption


def calibrate(
    prediction: Annotated[
        Path, typer.Argument(help="Prediction of slides that have the true label.")
    ],
    truth: TruthOption = Path("store.zarr"),
    label: LabelOption = "annotations",
    method: Annotated[
        Method,
        typer.Option(
            help="One temperature per class, or the measured frequency of the class for each "
            "probability (quantile)."
        ),
    ] = "temperature",
    apply: Annotated[
        Path | None,
        typer.Option(help="Prediction to calibrate.", show_default="only measure"),
    ] = None,
    out: Annotated[Path, typer.Option(help="Collection for the calibrated prediction.")] = Path(
        "calibrated.zarr"
    ),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace slides with another calibration.")
    ] = False,
    json_mode: JsonFlag = False,
) -> None:
    """Measure the calibration of probabilities, or calibrate them.

    Fit the calibration on out-of-fold predictions, of slides that the model was not trained on. If
    interrupted, run the command again to continue with the first unfinished slide.

    For example:

      wsi-seg calibrate run/oof.zarr --truth store.zarr
      wsi-seg calibrate run/oof.zarr --apply pred.zarr --out calibrated.zarr
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.evaluation.calibration import reliability
        from wsi_seg.evaluation.recalibrate import Calibration, write_calibrated
        from wsi_seg.store import open_collection, open_predictions

        report = reliability(
            open_predictions(prediction),
            open_collection(truth),
            label=label,
            progress=terminal.progress,
        )
        terminal.show(report)
        report.require_whole()
        if apply is None:
            terminal.next_command("wsi-seg", "calibrate", prediction, "--apply", "pred.zarr")
        else:
            written = write_calibrated(
                open_predictions(apply),
                Calibration.fit(report.classes, method, softmax=report.softmax),
                out,
                overwrite=overwrite,
                progress=terminal.progress,
            )
            written.require_whole()
            terminal.next_command("wsi-seg", "export", str(out), "--ome-tiff", "probabilities")
        return report.to_json() | {"out": None if apply is None else str(out)}

    run_verb(body, json_mode, writes=None if apply is None else out, makes=True)
