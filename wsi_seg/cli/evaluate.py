"""Owns ``wsi-seg evaluate``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb
from wsi_seg.cli.options import (
    BoxOption,
    InsideOption,
    LabelOption,
    OnlyOption,
    ShardOption,
    TruthOption,
    inside_of,
    only_some,
    shard_of,
)
from wsi_seg.cli.rules import (
    RuleOption,
    ThresholdOption,
    WatershedOption,
    chosen_rule,
    rule_file,
)


def evaluate(
    prediction: Annotated[Path, typer.Argument(help="Collection made by `wsi-seg infer`.")],
    truth: TruthOption = Path("store.zarr"),
    label: LabelOption = "annotations",
    rule: RuleOption = None,
    threshold: ThresholdOption = None,
    watershed_depth: WatershedOption = 0.0,
    tolerance_um: Annotated[
        float,
        typer.Option(
            min=0,
            help="Distance in um up to which an outline counts as correct (in pixels if mpp is "
            "unknown).",
        ),
    ] = 2.0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for scores.json and slides.csv.", show_default="only print scores"
        ),
    ] = None,
    maps: Annotated[
        bool,
        typer.Option(
            "--maps",
            help="Add labels to the prediction: errors, and energy score and uncertainty if "
            "probabilities were saved.",
        ),
    ] = False,
    only: OnlyOption = None,
    inside: InsideOption = None,
    bbox: BoxOption = None,
    shard: ShardOption = None,
    json_mode: JsonFlag = False,
) -> None:
    """Score predictions by pixels, tiles, objects and outlines.

    Scores are printed per slide and pooled. Slides without the ground-truth label are listed and
    skipped. If other slides cannot be scored, the exit code is 1, after the scores of the rest.
    Several processes may score one collection, see --shard; the last one to finish writes the
    scores of all slides.

    For example:

      wsi-seg evaluate pred.zarr --truth store.zarr
      wsi-seg evaluate pred.zarr --rule run/rule.json --out scores/
      wsi-seg evaluate pred.zarr --out scores/ --shard 3/16
      wsi-seg evaluate pred.zarr --inside polygons/annotated.geojson
    """
    share = shard_of(shard)
    if share is not None and out is None:
        raise typer.BadParameter("got --shard without --out; expected a folder for the scores")
    file = rule_file(rule, threshold)

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.evaluation.compare import Scoring, usual_measures
        from wsi_seg.evaluation.share import evaluate_share
        from wsi_seg.store import open_collection, open_predictions

        predictions = only_some(open_predictions(prediction), only)
        scoring = Scoring(
            predictions,
            open_collection(truth),
            label,
            chosen_rule(terminal, file, threshold, watershed_depth),
            usual_measures(predictions, tolerance_um=tolerance_um),
            maps,
            terminal.progress,
            inside_of(inside, bbox),
        )
        if share is not None and out is not None:
            scores = evaluate_share(scoring, share, out)
        else:
            scores = scoring.run(out)
        terminal.table(("slide", "class", "Dice", "IoU", "object F1"), scores.rows())
        terminal.show(scores)
        if out is not None and not scores.elsewhere:
            terminal.say(f"wrote {out / 'scores.json'} and {out / 'slides.csv'}")
        scores.require_whole()
        terminal.next_command("wsi-seg", "report", prediction, "--slides", truth)
        return scores.to_json()

    writes = maps or watershed_depth > 0 or (file, threshold) != (None, None)
    # Processes with a share use a shared lock instead.
    run_verb(body, json_mode, writes=prediction if writes and share is None else None)
