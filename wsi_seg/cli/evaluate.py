"""Owns ``wsi-seg evaluate``."""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb
from wsi_seg.cli.options import LabelOption, TruthOption
from wsi_seg.cli.rules import (
    RuleOption,
    ThresholdOption,
    WatershedOption,
    chosen_rule,
    rule_file,
    rule_line,
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
            help="Distance in um up to which an outline counts as right (in pixels where mpp is "
            "unknown).",
        ),
    ] = 2.0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for scores.json and slides.csv.", show_default="they are only printed"
        ),
    ] = None,
    maps: Annotated[
        bool,
        typer.Option(
            "--maps",
            help="Add labels to the prediction: errors, and energy score and uncertainty where "
            "probabilities were saved.",
        ),
    ] = False,
    json_mode: JsonFlag = False,
) -> None:
    """Score predictions by pixels, tiles, objects and outlines.

    Scores are given per slide and pooled. Slides without the true label are named and left out.
    If others cannot be scored, the exit code is 1, after the scores of the rest.

    For example:

      wsi-seg evaluate pred.zarr --truth store.zarr
      wsi-seg evaluate pred.zarr --rule run/rule.json --out scores/
    """
    file = rule_file(rule, threshold)

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.evaluate.compare import evaluate_collection, usual_measures
        from wsi_seg.evaluate.table import write_scores
        from wsi_seg.postprocess.write import write_decision
        from wsi_seg.store import open_collection, open_predictions
        from wsi_seg.store.names import DECISION_LABEL, PREDICTION_LABEL

        predictions = open_predictions(prediction)
        chosen = chosen_rule(file, threshold, watershed_depth)
        found_label = PREDICTION_LABEL if chosen is None else DECISION_LABEL
        if chosen is not None:
            terminal.say(rule_line(file, chosen))
        scores = evaluate_collection(
            predictions,
            open_collection(truth),
            label=label,
            found_label=found_label,
            measures=usual_measures(predictions, tolerance_um=tolerance_um),
            decide=None if chosen is None else partial(write_decision, rule=chosen),
            progress=terminal.progress,
        )
        terminal.table(
            ("slide", "class", "Dice", "IoU", "object F1"),
            [
                (
                    s.slide,
                    s.class_name,
                    f"{s.counts.dice:.4f}",
                    f"{s.counts.iou:.4f}",
                    "" if s.objects is None else f"{s.objects.f1:.3f}",
                )
                for s in scores.slides
            ],
        )
        terminal.show(scores)
        if maps:
            from wsi_seg.evaluate.maps import write_maps

            slides = open_collection(truth)
            kept = Counter(
                write_maps(predictions[name], slides[name], label=label, found_label=found_label)
                for name in scores.scored
            )
            for names, count in kept.items():
                terminal.say(f"labels {', '.join(names)} of {count} slides in {prediction}")
        if out is not None:
            write_scores(out, scores)
            terminal.say(f"wrote {out / 'scores.json'} and {out / 'slides.csv'}")
        terminal.next_command("wsi-seg", "report", prediction, "--slides", truth)
        scores.require_whole()
        return scores.to_json()

    writes = maps or watershed_depth > 0 or (file, threshold) != (None, None)
    run_verb(body, json_mode, writes=prediction if writes else None)
