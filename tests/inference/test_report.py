"""What people read at the end of a run is in plain words."""

import pytest

from wsi_seg.inference.report import speed_costs


@pytest.mark.parametrize(
    ("labels", "verdict"),
    [(0.0, "small change"), (0.0004, "small change"), (0.069, "large change")],
)
def test_what_speed_cost_has_a_verdict(labels, verdict):
    text = speed_costs("bf16", labels, 0.8989)
    assert f"the class of {labels:.2%} of the first tile's pixels" in text
    assert "the probability of 90%" in text
    assert verdict in text
    assert ("--precision fp32" in text) == (labels > 0.001)
