"""Owns assembling a report and writing it atomically."""

import base64
import html
import io
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from wsi_seg import __version__
from wsi_seg.ct.froc import froc_of_files
from wsi_seg.errors import ConfigError, StoreError
from wsi_seg.evaluation.compare import evaluate
from wsi_seg.files.atomic import atomic_path, require_permission
from wsi_seg.files.half_written import remove_partials
from wsi_seg.progress import Progress, Silent
from wsi_seg.reporting.page import Section, page
from wsi_seg.reporting.prediction import (
    froc_section,
    lowest_first,
    picture_sections,
    prediction_warnings,
    provenance_sections,
    score_sections,
    warning_section,
)
from wsi_seg.reporting.training import is_run, run_sections, run_warnings
from wsi_seg.store import Collection, Predictions, open_collection, open_predictions


@dataclass(frozen=True, slots=True)
class ReportSources:
    """Inputs of a report.

    Parameters
    ----------
    target
        Predictions, or folder of a training run.
    slides
        Collection of the slides, required for images and scores of predictions.
    truth
        Name of the ground-truth label; slides without it are not scored.
    run
        Folder of the training run of the prediction's model.
    candidates, findings
        csv files of candidates and of true findings, see `wsi_seg.ct.froc`; both or neither.

    Examples
    --------
    >>> ReportSources(Path("pred.zarr"), slides=Path("store.zarr")).truth
    'annotations'
    """

    target: Path
    slides: Path | None = None
    truth: str = "annotations"
    run: Path | None = None
    candidates: Path | None = None
    findings: Path | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Written file, titles of its sections, and slides that were not scored."""

    file: Path
    sections: tuple[str, ...]
    unscored: tuple[str, ...]

    def lines(self) -> list[str]:
        """Report as lines of text."""
        lines = [f"wrote {self.file}: {', '.join(self.sections)}"]
        if self.unscored:
            lines.append(f"not scored: {', '.join(self.unscored)}")
        return lines

    def _repr_html_(self) -> str:
        """Show the page in a notebook cell."""
        page_text = html.escape(self.file.read_text(encoding="utf-8"))
        return f'<iframe srcdoc="{page_text}" style="width:100%;height:720px;border:0"></iframe>'

    def _repr_png_(self) -> bytes | None:
        """Show the first image of the page, if any, in notebooks that do not show HTML."""
        found = re.search(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", self.file.read_text("utf-8"))
        if found is None:
            return None
        drawn = io.BytesIO()
        with Image.open(io.BytesIO(base64.b64decode(found[1]))) as picture:
            picture.save(drawn, format="PNG")
        return drawn.getvalue()

    def to_json(self) -> dict[str, object]:
        """Report as JSON values."""
        return {
            "file": str(self.file),
            "sections": list(self.sections),
            "unscored": list(self.unscored),
        }


def report(
    sources: ReportSources,
    out: Path | str,
    *,
    progress: Progress = Silent(),  # noqa: B008 (has no state)
) -> Report:
    """Write a self-contained HTML report.

    Parameters
    ----------
    sources
        Inputs of the report.
    out
        File to write.
    progress
        Advanced by scores and pictures.

    Returns
    -------
    Report
        File, sections, and slides without scores.

    Raises
    ------
    ConfigError
        If the target is neither a run nor a collection of predictions.
    StoreError
        If a collection cannot be read, or a predicted slide is not among the slides.

    Examples
    --------
    >>> report(ReportSources(Path("run")), "report.html").sections  # doctest: +SKIP
    """
    out = Path(out)
    if sources.run is not None and not is_run(sources.run):
        raise ConfigError(
            f"{sources.run} is not a training run; expected recipe.yaml and metrics.csv"
        )
    require_permission(out)
    if is_run(sources.target):
        title, sections = f"Training run {sources.target.resolve().name}", []
        data: dict[str, object] = {}
        unscored: tuple[str, ...] = ()
        sections += warning_section(run_warnings(sources.target)) + run_sections(sources.target)
    else:
        title = f"Prediction {sources.target.resolve().name}"
        sections, data, unscored, lines = _prediction(sources, progress)
        if sources.run is not None:
            lines += run_warnings(sources.run)
        sections = warning_section(lines) + sections
        if sources.candidates is not None and sources.findings is not None:
            found = froc_of_files(sources.candidates, sources.findings)
            data = data | {"froc": found.to_json()}
            sections.insert(min(3, len(sections)), froc_section(found))
        if sources.run is not None:
            sections += run_sections(sources.run)
    text = page(title, f"wsi_seg {__version__}", sections, data)
    with atomic_path(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    remove_partials((out,))
    return Report(out, tuple(section.title for section in sections), unscored)


def _prediction(
    sources: ReportSources, progress: Progress
) -> tuple[list[Section], dict[str, object], tuple[str, ...], list[str]]:
    """Return the sections, machine-readable values, slides without scores, and warnings."""
    try:
        predictions = open_predictions(sources.target)
    except StoreError as error:
        raise ConfigError(
            f"{error}; expected predictions, or a run with recipe.yaml and metrics.csv"
        ) from error
    names = predictions.require_names()
    if sources.slides is None:
        sections = provenance_sections(predictions, recipe=sources.run is None)
        return sections, {}, names, prediction_warnings(predictions, None)
    slides = open_collection(sources.slides)
    _require_slides(predictions, slides)
    unscored = lacking = names
    sections = list[Section]()
    data: dict[str, object] = {}
    lines = prediction_warnings(predictions, slides)
    order = list(names)
    if any(sources.truth in slides[name].label_names() for name in names):
        scores = evaluate(predictions, slides, label=sources.truth, progress=progress)
        sections, data = score_sections(scores), scores.to_json()
        worst = lowest_first(scores)
        order = list(dict.fromkeys([*worst, *order]))
        lacking, unscored = scores.unscored, (*scores.unscored, *scores.failures)
        lines += [*scores.warnings, *(f"{name}: {why}" for name, why in scores.failures.items())]
    if lacking:
        names_text = ", ".join(lacking)
        lines.append(f"not scored, because they have no label {sources.truth!r}: {names_text}")
    sections += picture_sections(predictions, slides, sources.truth, order=order, progress=progress)
    sections += provenance_sections(predictions, recipe=sources.run is None)
    return sections, data, unscored, lines


def _require_slides(predictions: Predictions, slides: Collection) -> None:
    missing = sorted(set(predictions.names()) - set(slides.names()))
    if missing:
        raise StoreError(
            f"{slides.path} has no slide {missing[0]!r}, which is in {predictions.path}; expected "
            "the collection of slides that was predicted"
        )
