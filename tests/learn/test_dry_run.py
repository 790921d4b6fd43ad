import pytest

from wsi_seg.errors import ConfigError
from wsi_seg.learn.dry_run import dry_run


def test_a_dry_run_measures_each_phase_and_writes_nothing(recipe_for, slides):
    before = sorted(slides.rglob("*"))
    recipe = recipe_for(
        "model.deep_supervision=0.1",
        "train.ema=null",
        "phases=[{name: one}, {name: two, patch_px: 64}]",
    )
    one, two = dry_run(recipe)
    assert sorted(slides.rglob("*")) == before
    assert (one.phase, two.phase) == ("one", "two")
    assert (one.train_slides, one.validation_slides) == (2, 1)
    assert one.parameters == two.parameters > 1e5
    # AdamW: weights, gradients and two moments.
    assert one.fixed_bytes == pytest.approx(16 * one.parameters, rel=0.01)
    assert two.patch_bytes == pytest.approx(4 * one.patch_bytes, rel=0.2)
    assert one.largest_batch > two.largest_batch > 0
    used = two.fixed_bytes + two.largest_batch * two.patch_bytes
    assert used <= two.free_bytes
    assert f"{two.largest_batch}" in two.lines()[-2]
    assert one.steps == two.steps == 12  # 3 epochs of 32 patches, 8 at a time
    assert two.step_seconds > 0
    assert f"{two.minutes:.1f} min" in two.lines()[-1]


def test_averages_and_lookahead_need_copies_of_the_weights(recipe_for):
    plain = dry_run(recipe_for("train.ema=null"))[0].fixed_bytes
    more = dry_run(recipe_for("train.ema=0.9", "optimizer={lookahead: true}"))[0].fixed_bytes
    assert more == pytest.approx(1.5 * plain, rel=0.01)


def test_a_dry_run_checks_the_recipe(recipe_for):
    with pytest.raises(ConfigError, match="class unseen has no object"):
        dry_run(recipe_for("classes=[{name: disc}, {name: unseen}]"))
