"""Owns ``wsi-seg ct lungs``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def lungs(
    collection: Annotated[Path, typer.Argument(help="Collection of slices of CT volumes.")],
    volumes: Annotated[
        list[Path] | None,
        typer.Option(
            help="Volume file (mhd, nii), for the distance between slices; repeat the option for "
            "each volume.",
            show_default="that of --rules",
        ),
    ] = None,
    rules: Annotated[
        Path | None,
        typer.Option(
            help="YAML file with a rule, and rules for single cases.",
            show_default="the rule of the winner of DSB 2017",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("lungs"),
    json_mode: JsonFlag = False,
) -> None:
    """Segment lungs, which replace the slices' tissue masks.

    Training then samples from the lungs, and `infer` skips the rest. A picture of each volume shows
    the outline; volumes with unusual masks are listed. Correct those with a rule for the case:

      cases: {scan7: {threshold_hu: -150, off_axis_mm: 92, keep: 2}}

    For example:

      wsi-seg ct lungs ct.zarr --volumes scan1.mhd --volumes scan2.mhd
      wsi-seg ct lungs ct.zarr --rules lungs.yaml --out look
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.ct.config import LungRules, read_lung_rules
        from wsi_seg.ct.lung_masks import mask_lungs
        from wsi_seg.slides.slide import slide_name
        from wsi_seg.slides.volume import volume_grid
        from wsi_seg.store import open_collection

        report = mask_lungs(
            list(open_collection(collection)),
            LungRules() if rules is None else read_lung_rules(rules),
            out,
            slice_mm={slide_name(path): volume_grid(path).spacing[2] for path in volumes or []},
            progress=terminal.progress,
        )
        terminal.show(report)
        terminal.next_command("wsi-seg", "annotate", collection, "nodules.csv")
        report.require_whole()
        return report.to_json()

    run_verb(body, json_mode, writes=collection)
