"""Fixtures: the ledger on a database of choice, and books with a little of everything in it.

A module that is to run on both databases says `pytest.mark.parametrize("url", DATABASES, indirect=True)`.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployment.health.signing_key import signing_key
from rewards.credit import Receipt, receipt_amounts
from rewards.ledger.ledger import Ledger
from rewards.signing.keys import SigningKey
from tests.deployment.api.world import ORIGIN
from tests.deployment.conftest import CLIENTS, OTHER, OTHER_CLIENTS
from tests.deployment.gateway.engines import CARD
from tests.rewards.conftest import drop_database, new_database

MODELS = {CARD.name: CARD.global_sha256, OTHER: "cd" * 32}


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a prepared ledger in which two consortia are registered; on SQLite, unless a module says otherwise."""
    if getattr(request, "param", "sqlite") == "postgresql":
        postgresql = request.getfixturevalue("postgresql")
        url = new_database(postgresql, request.getfixturevalue("shared_database"))
        yield url
        drop_database(postgresql, url)
    else:
        shutil.copy(request.getfixturevalue("shared_file"), tmp_path / "ledger.db")
        yield f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def books(ledger: Ledger) -> Ledger:
    """Eleven receipts of two consortia and two applications, and the reversals of two of them."""
    ledger.append_many([make_receipt(number) for number in range(1, 12)])
    ledger.reverse("r4", "a test question", "tester")
    ledger.reverse("r5", "a test question", "tester")
    return ledger


@pytest.fixture
def signer(ledger: Ledger, tmp_path: Path) -> SigningKey:
    """The signing key of the service, in the file that `Books` is told of."""
    return signing_key(tmp_path / "signing.key", ledger, ORIGIN)


def make_receipt(number: int, created_at_us: int = 1_790_000_000_000_000) -> Receipt:
    """A receipt whose fields follow from its number; every third credits the commons alone, every fifth is OTHER's."""
    consortium = OTHER if number % 5 == 0 else CARD.name
    members = OTHER_CLIENTS if consortium == OTHER else CLIENTS
    shares = dict.fromkeys(members, 0.0 if number % 3 == 0 else 0.25)
    response_id = f"r{number}"
    return Receipt(
        response_id=response_id,
        created_at_us=created_at_us,
        application="shop" if number % 2 else "desk",
        consortium=consortium,
        model_sha256=MODELS[consortium],
        method="credit",
        settings={"nodes": 2},
        version="1",
        tokens=number,
        amounts=receipt_amounts(response_id, number, shares, 1 - sum(shares.values())),
        measurement={"gain": 0.5},
        duration_us=1,
    )
