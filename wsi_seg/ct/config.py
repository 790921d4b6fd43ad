"""Owns how lungs are found in CT: one rule for all volumes, and what differs for single ones.

The file is YAML::

    rule: {threshold_hu: -600}
    cases:
      scan7: {threshold_hu: -150, off_axis_mm: 92, keep: 2, blank: [0, 12]}
"""

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from wsi_seg.config.section import Section
from wsi_seg.config.text import read_yaml
from wsi_seg.errors import ConfigError

Positive = Annotated[float, Field(gt=0)]


class LungRule(Section):
    """What counts as lung; the defaults are those of the first place of DSB 2017.

    Parameters
    ----------
    threshold_hu
        Lung is below this; -150 keeps nodules on the wall.
    smooth_mm
        Spread of the Gaussian that takes out noise first.
    least_area_mm2, most_eccentric
        Pieces of a slice that are smaller, or longer than this eccentricity, are dropped.
    volume_l
        Least and largest volume of a piece in litres.
    large_area_mm2, off_axis_mm
        A piece is dropped if its slices larger than the first are, on average, farther than the
        second from the middle of the image: a table or clothes.
    keep
        Keep so many pieces at most, the largest ones; None keeps all.
    close_mm
        Vessels and nodules up to about twice this width, cut out by the threshold, come back.
    blank
        Slices without lung: so many at the low and at the high end.
    slice_mm
        From slice to slice; None takes it from the volume.
    """

    threshold_hu: float = -600.0
    smooth_mm: Positive = 0.7
    least_area_mm2: Positive = 30.0
    most_eccentric: Annotated[float, Field(gt=0, lt=1)] = 0.99
    volume_l: tuple[float, float] = (0.68, 8.2)
    large_area_mm2: Positive = 6000.0
    off_axis_mm: Positive = 62.0
    keep: Annotated[int, Field(ge=1)] | None = None
    close_mm: Positive = 6.0
    blank: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] = (0, 0)
    slice_mm: Positive | None = None


class _Rules(Section):
    rule: dict[str, object] = Field(default_factory=dict)
    cases: dict[str, dict[str, object]] = Field(default_factory=dict)


class LungRules(Section):
    """A rule, and those of the volumes that it does not fit, by their names."""

    rule: LungRule = LungRule()
    cases: dict[str, LungRule] = Field(default_factory=dict)

    def of(self, volume: str) -> LungRule:
        """Rule for one volume."""
        return self.cases.get(volume, self.rule)


def read_lung_rules(path: Path) -> LungRules:
    """Read rules; a case has the values of ``rule`` where it says nothing else.

    Raises
    ------
    ConfigError
        If the file cannot be read, or a key or value does not fit.
    """
    try:
        found = _Rules.model_validate_json(json.dumps(read_yaml(path)))
        rule = _rule(found.rule)
        cases = {name: _rule({**found.rule, **own}) for name, own in found.cases.items()}
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "rules"
        raise ConfigError(
            f"{path}: {key}: {first['msg']}; expected rule and cases, each with some of "
            f"{', '.join(LungRule.model_fields)}"
        ) from error
    return LungRules(rule=rule, cases=cases)


def _rule(values: dict[str, object]) -> LungRule:
    return LungRule.model_validate_json(json.dumps(values))
