"""Fixtures: commands that say what they found, and nothing of how far they are, in lines as long as they are."""

import math

import pytest

from deployment.cli.output import console


@pytest.fixture(autouse=True)
def silent_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine, so that what stands on stderr is what is wrong."""
    monkeypatch.setattr("deployment.cli.progress.INTERVAL_S", math.inf)


@pytest.fixture(autouse=True)
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test has drawn for a picture, as wide as a terminal, ends with it."""
    monkeypatch.setattr(console, "record", False)
