"""Which colours the boards have: one by name for each curve, so that a client keeps its own, and those of steps."""

from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard

Steps = Sequence[tuple[float, str]]
"""From which value on which colour: a threshold is drawn as a line, and tints a figure that is written out anyway."""
_BASE: Final = "green"


def by_name() -> build.FieldColor:
    """A colour of the classic palette for each curve, chosen by its name: a client has the same on every panel."""
    return build.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC_BY_NAME)


def by_threshold() -> build.FieldColor:
    """The colour of the highest threshold that the value has passed."""
    return build.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS)


def thresholds(steps: Steps) -> build.ThresholdsConfig:
    """The thresholds of a panel, upon the colour of what is below all of them."""
    ladder = [dashboard.Threshold(value=None, color=_BASE)]
    ladder += [dashboard.Threshold(value=value, color=colour) for value, colour in steps]
    return build.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(ladder)
