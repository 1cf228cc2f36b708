"""Fixtures: commands that say what they found, and nothing of how far they are."""

import math

import pytest


@pytest.fixture(autouse=True)
def silent_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine, so that what stands on stderr is what is wrong."""
    monkeypatch.setattr("deployment.cli.progress.INTERVAL_S", math.inf)
