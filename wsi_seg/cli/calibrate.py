"""Owns ``wsi-seg calibrate``."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


class MethodName(enum.StrEnum):
    """Ways to calibrate."""

    TEMPERATURE = "temperature"
    QUANTILE = "quantile"


def calibrate(
    prediction: Annotated[Path, typer.Argument(help="Prediction of slides with a truth.")],
    truth: Annotated[Path, typer.Option(help="Collection with the true labels.")] = Path(
        "store.zarr"
    ),
    label: Annotated[str, typer.Option(help="Name of the true label.")] = "annotations",
    method: Annotated[
        MethodName, typer.Option(help="Mend confidence, or give each value its true share.")
    ] = MethodName.TEMPERATURE,
    apply: Annotated[
        Path | None, typer.Option(help="Prediction to calibrate; without it, figures are told.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Collection for the calibrated prediction.")] = Path(
        "calibrated.zarr"
    ),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace slides that were calibrated otherwise.")
    ] = False,
    json_mode: JsonFlag = False,
) -> None:
    """Tell how far probabilities can be believed, and calibrate others by it.

    Fit on predictions of slides that the model has not seen, such as out-of-fold ones. Run it
    again after an interruption and it continues with the first unfinished slide.

    For example:

      wsi-seg calibrate run/oof.zarr --truth store.zarr
      wsi-seg calibrate run/oof.zarr --apply pred.zarr --out calibrated.zarr
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.evaluate.calibration import reliability
        from wsi_seg.evaluate.recalibrate import Calibration, write_calibrated
        from wsi_seg.store import open_collection

        found = reliability(open_collection(prediction), open_collection(truth), label=label)
        for name, one in found.items():
            terminal.say(
                f"{name}: calibration error {one.ece:.4f}, temperature {one.temperature():.3f} "
                "(above 1: the model is too sure)"
            )
        if apply is not None:
            write_calibrated(
                open_collection(apply),
                Calibration.fit(found, method.value),
                out,
                overwrite=overwrite,
                progress=terminal.progress,
            )
            terminal.next_command("wsi-seg", "export", str(out), "--ome-tiff", "probabilities")
        figures = {name: one.to_json() for name, one in found.items()}
        return {"classes": figures, "out": None if apply is None else str(out)}

    run_verb(body, json_mode, writes=None if apply is None else out, makes=True)
