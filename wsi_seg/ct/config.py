"""Owns the configuration of lung segmentation in CT: a rule, and overrides for single volumes.

The file is YAML::

    rule: {threshold_hu: -600}
    cases:
      scan7: {threshold_hu: -150, off_axis_mm: 92, keep: 2, blank: [0, 12]}
"""

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from wsi_seg.config.section import Rising, Section
from wsi_seg.config.text import read_yaml
from wsi_seg.errors import ConfigError

Positive = Annotated[float, Field(gt=0)]


class LungRule(Section):
    """Criteria for lungs; the defaults are those of the winner of DSB 2017.

    Parameters
    ----------
    threshold_hu
        Lung is below this threshold; -150 keeps nodules on the pleura.
    smooth_mm
        Sigma of the Gaussian that reduces noise first, in mm.
    least_area_mm2, most_eccentric
        Components of a slice that are smaller, or have a higher eccentricity, are dropped.
    volume_l
        Minimum and maximum volume of a component in litres.
    large_area_mm2, off_axis_mm
        A component, such as a table or clothes, is dropped if its slices larger than the first
        value are, on average, farther than the second from the centre of the image.
    keep
        Maximum number of components, the largest ones; None keeps all.
    close_mm
        Radius of closing: restores vessels and nodules up to about twice this width, which the
        threshold cut out.
    blank
        Number of slices without lung at the low and the high end.
    slice_mm
        Distance of the slices in mm; None uses that of the volume.
    """

    threshold_hu: float = -600.0
    smooth_mm: Positive = 0.7
    least_area_mm2: Positive = 30.0
    most_eccentric: Annotated[float, Field(gt=0, lt=1)] = 0.99
    volume_l: Annotated[tuple[float, float], Rising] = (0.68, 8.2)
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
    """The common rule, and rules of single volumes by name."""

    rule: LungRule = LungRule()
    cases: dict[str, LungRule] = Field(default_factory=dict)

    def of(self, volume: str) -> LungRule:
        """Return the rule of a volume."""
        return self.cases.get(volume, self.rule)


def read_lung_rules(path: Path) -> LungRules:
    """Read rules; a case inherits the values of ``rule`` that it does not override.

    Raises
    ------
    ConfigError
        If the file cannot be read, or a key or value is not valid.
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
