"""Owns evaluation by several processes: each scores slides, and the last one merges all scores."""

from pathlib import Path

from wsi_seg.evaluation.compare import Scoring
from wsi_seg.evaluation.kept import ScoredSlide
from wsi_seg.evaluation.scores import Scores
from wsi_seg.evaluation.table import SCORES, write_scores
from wsi_seg.files.atomic import require_permission
from wsi_seg.shard import Shard
from wsi_seg.store.turns import areas, taking_turns


def evaluate_share(scoring: Scoring, shard: Shard, out: Path | str) -> Scores:
    """Score a share of the predictions, then the slides of processes that were killed.

    Parameters
    ----------
    scoring
        Predictions, and options of scoring; the same in all processes.
    shard
        Share of this process, balanced by the sizes of the slides.
    out
        Folder for ``scores.json`` and ``slides.csv``, which the last process to finish writes.

    Returns
    -------
    Scores
        In the last process, scores of all slides; in the others, scores of the slides that the
        process scored, see `Scores.elsewhere`.

    Raises
    ------
    BatchError
        If no slide can be scored.
    BusyError
        If another command, or an evaluation with other options, is running on the predictions.

    Examples
    --------
    >>> evaluate_share(scoring, Shard(3, 16), "scores").elsewhere  # doctest: +SKIP
    45
    """
    predictions, folder = scoring.predictions, Path(out)
    predictions.require_names()
    require_permission(folder / SCORES)

    def to_json(found: ScoredSlide) -> object:
        return {"digests": scoring.digests(found.slide), "found": found.to_json()}

    def is_current(name: str, kept: object) -> bool:
        return isinstance(kept, dict) and kept["digests"] == scoring.digests(name)

    def of_json(_: str, kept: object) -> ScoredSlide:
        assert isinstance(kept, dict)
        return ScoredSlide.from_json(kept["found"])

    with taking_turns(
        predictions.path,
        "evaluate",
        shard,
        areas(predictions),
        options=scoring.options() | {"out": str(folder)},
        is_current=is_current,
        progress=scoring.progress,
    ) as turns:
        batch = turns.run(scoring.score, to_json, title="evaluate")
        with turns.end(lambda: (folder / SCORES).exists()) as last:
            if not last:
                done = len(batch.results) + len(batch.failures)
                return scoring.joined(batch, elsewhere=len(predictions) - done)
            found = scoring.joined(turns.all(of_json))
            write_scores(folder, found)
            return found
