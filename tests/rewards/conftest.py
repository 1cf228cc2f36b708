"""Fixtures: a prepared ledger in a folder of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rewards import Ledger


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a prepared, empty ledger."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    Ledger.prepare(url)
    return url


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    """An empty ledger, open."""
    ledger = Ledger(url)
    yield ledger
    ledger.close()
