"""Owns ``wsi-seg preview``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb
from wsi_seg.cli.options import SetOption


def preview(
    recipe: Annotated[Path, typer.Argument(help="Recipe for `wsi-seg train`.")],
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("preview.png"),
    slides: Annotated[
        int, typer.Option(min=1, help="Maximum number of slides, evenly selected.")
    ] = 24,
    settings: SetOption = None,
    json_mode: JsonFlag = False,
) -> None:
    """Preview the training data of a recipe.

    Writes a contact sheet: the training slides with tissue, labels and sampled patches; augmented
    patches with the outlines of their labels; and the mean label by position in the patch, which
    should be uniform.

    For example:

      wsi-seg preview recipe.yaml
      wsi-seg preview recipe.yaml --set augment=heavy --out heavy.png
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.config import load_recipe
        from wsi_seg.learn.split import learned_from
        from wsi_seg.reporting.preview import preview_slides

        loaded = load_recipe(recipe, settings or ())
        stores = learned_from(loaded)
        report = preview_slides(stores, loaded, out, most=slides, progress=terminal.progress)
        terminal.show(report)
        chosen = [word for setting in settings or () for word in ("--set", setting)]
        report.require_whole()
        terminal.next_command("wsi-seg", "train", recipe, *chosen, "--out", "run")
        return report.to_json()

    run_verb(body, json_mode)
