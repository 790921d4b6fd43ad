"""Owns ``wsi-seg lungs``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def lungs(
    store: Annotated[Path, typer.Argument(help="Collection with slices of CT volumes.")],
    volumes: Annotated[
        list[Path] | None,
        typer.Option(help="Volume file, for the distance of slices; repeat for each volume."),
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(help="YAML with a rule, and rules of single cases.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("lungs"),
    json_mode: JsonFlag = False,
) -> None:
    """Find lungs in CT volumes; they take the place of the slices' tissue masks.

    Training then draws from lung, and `infer` skips what is none. A picture of each volume shows
    the outline; volumes that look unusual are named. Mend those with a rule of their own:

      cases: {scan7: {threshold_hu: -150, off_axis_mm: 92, keep: 2}}

    For example:

      wsi-seg lungs ct.zarr --volumes scan1.mhd --volumes scan2.mhd
      wsi-seg lungs ct.zarr --rules lungs.yaml --out look
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.ct.config import LungRules, read_lung_rules
        from wsi_seg.ct.lung_masks import mask_lungs
        from wsi_seg.slides.slide import slide_name
        from wsi_seg.slides.volume import volume_grid
        from wsi_seg.store import open_collection

        report = mask_lungs(
            list(open_collection(store)),
            LungRules() if rules is None else read_lung_rules(rules),
            out,
            slice_mm={slide_name(path): volume_grid(path).spacing[2] for path in volumes or []},
            progress=terminal.progress,
        )
        terminal.say("\n".join(report.lines()))
        terminal.next_command("wsi-seg", "annotate", store, "nodules.csv")
        return report.to_json()

    run_verb(body, json_mode, writes=store)
