"""Owns the settings of a prediction: everything that determines its bytes."""

from collections.abc import Iterable, Sequence
from hashlib import sha256

from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.plan import SlidePlan
from wsi_seg.inference.runner import Tuning
from wsi_seg.predict.ensemble import Model
from wsi_seg.reading.intensity import PreparedImage, prepared_image
from wsi_seg.store import SlideStore


def settings_of(
    plans: Sequence[SlidePlan],
    model: Model,
    options: InferOptions,
    precision: str,
    tuning: Tuning,
) -> dict[str, object]:
    """Return everything that determines the bytes of a prediction, as JSON values."""
    inside = {} if options.inside is None else {"inside": options.inside.description}
    return {
        "checkpoint": model.identity(),
        "overlap": options.overlap,
        "blend": options.blend,
        "tta": options.tta,
        "precision": precision,
        "compiled": tuning.compiled,
        "batch": list(tuning.batches),
        "save": options.saved(len(model.card.classes)),
        "skip_background": options.skip_background,
        "allow_mpp_mismatch": options.allow_mpp_mismatch,
        "strip_px": plans[0].shard_px,
        "classes": model.card.classes.to_json(),
        "tiles": _tiles(plans),
        **inside,
    } | _each(
        {
            "tile_px": plan.tile_px,
            "resize": plan.view.resize,
            "context_slices": plan.view.context_slices,
            "context_step_mm": plan.view.context_step_mm,
            "level": plan.level,
            "height": plan.extent.height,
            "width": plan.extent.width,
        }
        for plan in plans
    )


def measured(store: SlideStore, plans: Sequence[SlidePlan]) -> dict[str, object]:
    """Return the slide statistics that each member's intensity normalization has measured."""
    views = [plan.view for plan in plans if plan.view.intensity.is_on]
    found = [prepared_image(store, view.intensity) for view in views]
    found_in = [image.measured for image in found if isinstance(image, PreparedImage)]
    return {"intensity": found_in} if found_in else {}


def _tiles(plans: Sequence[SlidePlan]) -> str | None:
    """Return a digest of the tiles that a first pass selected; None without a first pass."""
    masks = [plan.keep.tobytes() for plan in plans if plan.first_pass is not None]
    return sha256(b"".join(masks)).hexdigest() if masks else None


def _each(rows: Iterable[dict[str, object]]) -> dict[str, object]:
    """Return the values of one plan unchanged, those of several plans as lists."""
    found = list(rows)
    return found[0] if len(found) == 1 else {key: [row[key] for row in found] for key in found[0]}
