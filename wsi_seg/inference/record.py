"""Owns the record of a run: its slides, its failures, and the settings its processes share.

Batch size, strip height and compilation affect the bytes of the result and depend on the machine.
The first process chooses them for all; `wsi-seg status` also reads the record.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Set
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path

from wsi_seg.files.atomic import write_atomic
from wsi_seg.files.object_folder import for_each
from wsi_seg.files.object_path import object_path
from wsi_seg.files.shared import names_in, read_replaced
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.plan import finest
from wsi_seg.inference.run_plan import RunPlan
from wsi_seg.inference.runner import Tuning
from wsi_seg.inference.unfinished import is_complete
from wsi_seg.predict.ensemble import Model
from wsi_seg.store.claims import Claims
from wsi_seg.store.names import JOURNAL, METADATA, PARTIAL, RUN
from wsi_seg.store.presence import Presence

_ENDING = ".plan"

# Options that may differ between processes of a run: they do not change the result, or the first
# process chooses them for all.
_OF_A_PROCESS = ("device", "readers", "max_ram", "shard", "stage", "strip_px", "batch", "compiled")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Record that the processes of one run share.

    Parameters
    ----------
    name
        Name of the run; equal for equal models and options.
    slides
        Number of tiles and number of strips of each slide, by name.
    chosen
        ``strip_px``, ``batch`` and ``compiled``, as in the settings of a prediction.
    failures
        Reasons why slides cannot be predicted, by name.
    """

    name: str
    slides: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    chosen: Mapping[str, object] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, plan: RunPlan, tuning: Tuning) -> "RunRecord":
        """Create the record of a planned run."""
        slides = {
            plans[0].slide: (
                sum(int(one.keep.sum()) for one in plans),
                len(finest(plans).strips),
            )
            for plans in plan.slides
        }
        chosen = {
            "strip_px": None if plan.memory is None else plan.memory.strip_px,
            "batch": list(tuning.batches),
            "compiled": tuning.compiled,
        }
        return cls(name, slides, chosen, dict(plan.failures))

    def with_slides_of(self, other: "RunRecord") -> "RunRecord":
        """Return this record, updated with the slides and failures of a newer one."""
        failures = {name: why for name, why in self.failures.items() if name not in other.slides}
        return replace(
            self,
            slides={**self.slides, **other.slides},
            failures={**failures, **other.failures},
        )


def run_name(model: Model, options: InferOptions) -> str:
    """Name the run of a model with these options."""
    chosen = {key: value for key, value in asdict(options).items() if key not in _OF_A_PROCESS}
    text = json.dumps([model.identity(), chosen], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_record(out: Path, name: str) -> RunRecord | None:
    """Read the record of a run; None if there is no record."""
    try:
        return _of_json(read_replaced(_path(out, name)))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _of_json(text: bytes) -> RunRecord:
    values = json.loads(text)
    slides = {slide: (int(one[0]), int(one[1])) for slide, one in values["slides"].items()}
    return RunRecord(values["name"], slides, values["chosen"], values["failures"])


def read_records(out: Path) -> list[RunRecord]:
    """Read the records of all incomplete runs."""
    names = sorted(path.name.removesuffix(_ENDING) for path in (out / RUN).glob(f"*{_ENDING}"))
    found = [read_record(out, name) for name in names]
    return [record for record in found if record is not None]


def agreed(out: Path, presence: Presence, record: RunRecord) -> RunRecord:
    """Add the slides of a process to the record of its run, and return the shared record.

    The first process of the run creates the record, and so chooses the settings for all.
    """
    if (remote := object_path(_path(out, record.name))) is not None:
        return _of_json(remote.update(lambda known: _with_ours(known, record)))
    claims, part = Claims(out / RUN, presence), f"{record.name}{_ENDING}.lock"
    while True:
        known = read_record(out, record.name)
        if known is not None and known == known.with_slides_of(record):
            return known
        if not claims.take(part):
            time.sleep(0.05)
            continue
        try:
            known = read_record(out, record.name)
            known = record if known is None else known.with_slides_of(record)
            write_atomic(_path(out, record.name), json.dumps(asdict(known)))
            return known
        finally:
            claims.give_back(part)


def begun_in_other_runs(out: Path, name: str, slides: Set[str]) -> Iterator[str]:
    """Yield a slide of each unfinished run of another name that has begun any of these slides."""
    for other in read_records(out):
        common = slides & other.slides.keys() if other.name != name else ()
        begun = (
            slide
            for slide in common
            if (out / slide / METADATA).is_file() or (out / PARTIAL / slide / JOURNAL).is_file()
        )
        yield from islice(begun, 1)


def _with_ours(known: bytes, record: RunRecord) -> bytes:
    """Add the slides of a process to the stored record, unless it contains them."""
    before = _of_json(known) if known else None
    after = record if before is None else before.with_slides_of(record)
    return known if after == before else json.dumps(asdict(after)).encode()


def concluded(out: Path, presence: Presence, record: RunRecord) -> None:
    """Record the failures of a run, and remove the records of complete runs."""
    if record.failures:
        agreed(out, presence, record)
    begun = set(names_in(out / PARTIAL))
    for known in read_records(out):
        slides = {**known.slides, **known.failures}
        complete = for_each(
            out,
            lambda one: is_complete(out, one) if one in begun else (out / one / METADATA).is_file(),
            slides,
        )
        if all(complete):
            _path(out, known.name).unlink(missing_ok=True)


def _path(out: Path, name: str) -> Path:
    return out / RUN / f"{name}{_ENDING}"
