"""An application outlives its keys: rotation keeps its identity, old ledgers learn it, and old receipts stay its."""

import itertools
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import NullPool, create_engine, text

from rewards.audit.replay import audit
from rewards.keys.ring import KeyRing
from rewards.ledger.idempotency_claims import Claims
from rewards.ledger.ledger import Ledger
from rewards.ledger.usage import is_of, names_of, names_with_receipts, tokens_of
from rewards.views import newest_first
from rewards.views.selection import Selection, totals
from tests.rewards.conftest import new_database
from tests.rewards.receipts import MEMBERS, make_receipt

PEPPER = bytes(range(32))
MIGRATIONS = Path(__file__).parents[3] / "rewards/store/migrations"


def key_id(presented: str) -> str:
    """The id of a key as it was presented."""
    return presented.split("_")[1]


@pytest.fixture(params=["sqlite", "postgresql"])
def old_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty ledger of the version before keys had identities, on each database in turn."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/old.db"
    else:
        url = new_database(request.getfixturevalue("postgresql"))
    upgrade(url, "0002")
    return url


def upgrade(url: str, revision: str) -> None:
    """The migrations of the package up to a revision."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def insert_keys(url: str, rotations: list[tuple[str, str | None]]) -> None:
    """Rows of keys as the version before wrote them: (id, the key that it replaced)."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)
    statement = text(
        "INSERT INTO api_keys (key_id, role, label, secret_hmac, created_at_us, rotated_from, token_budget) "
        "VALUES (:key_id, 'application', 'shop', :hmac, 1, :before, 100)"
    )
    with engine.begin() as connection:
        for name, before in rotations:
            connection.execute(statement, {"key_id": name, "hmac": "a" * 64, "before": before})


def test_rotation_keeps_the_identity_through_any_number_of_keys(url):
    """The first key's id is the identity of all that follow it, in the table, in the events and for the audit."""
    with closing(KeyRing(url, PEPPER)) as keys:
        first = keys.create("application", "shop", actor="test", token_budget=5)
        chain = [first]
        for _ in range(4):
            chain.append(keys.rotate(key_id(chain[-1]), actor="test"))
        other = keys.create("application", "desk", actor="test")

        assert {key_id(first)} == {keys.check(each).identity for each in chain}
        assert key_id(other) == keys.check(other).identity
        with keys.database.read() as connection:
            for each in chain:
                assert sorted(map(key_id, chain)) == names_of(connection, key_id(each))
            assert ["nobody"] == names_of(connection, "nobody")
    assert audit(url).is_ok


def test_an_old_ledger_learns_identities_from_its_rotations(old_url):
    """Chains of any length and order, keys that were never rotated, and a key whose predecessor is not there."""
    chain = [f"{number:012x}" for number in (9, 3, 7, 1)]
    insert_keys(old_url, [("ffffffffffff", None), ("eeeeeeeeeeee", "gone"), (chain[0], None)])
    insert_keys(old_url, [(later, before) for before, later in itertools.pairwise(chain)])
    upgrade(old_url, "head")
    with closing(KeyRing(old_url, PEPPER)) as keys:
        found = {key.key_id: key.identity for key in keys.list()}
        rotated = keys.rotate(chain[-1], actor="test")

        assert chain[0] == keys.check(rotated).identity
    assert {"ffffffffffff": "ffffffffffff", "eeeeeeeeeeee": "eeeeeeeeeeee", **dict.fromkeys(chain, chain[0])} == found


def test_a_key_of_before_keeps_its_limits_and_gets_no_others(old_url):
    """What a key may have under way at once, and its weight, came with 0006: an old key has neither, a new one may."""
    insert_keys(old_url, [("ffffffffffff", None)])
    upgrade(old_url, "head")
    with closing(KeyRing(old_url, PEPPER)) as keys:
        (old,) = keys.list()
        new = keys.check(keys.create("application", "shop", actor="test", concurrency=4, weight=2))

    assert (100, None, None, None) == (old.token_budget, old.requests_per_minute, old.concurrency, old.weight)
    assert (None, None, 4, 2) == (new.token_budget, new.requests_per_minute, new.concurrency, new.weight)


def test_receipts_of_before_stay_the_application_s(url):
    """Booked under a later key, as the version before did: they count, show and are its own, and nobody else's."""
    with closing(KeyRing(url, PEPPER)) as keys, closing(Ledger(url)) as ledger:
        first = keys.create("application", "shop", actor="test")
        second = key_id(keys.rotate(key_id(first), actor="test"))
        shop, other = key_id(first), key_id(keys.create("application", "desk", actor="test"))
        ledger.register("demo", MEMBERS)
        asked = (("r1", shop), ("r2", second), ("r3", other), ("r4", shop))
        for response_id, application in asked:
            ledger.append(replace(make_receipt(response_id), application=application))
        with ledger.database.read() as connection:
            assert ((21, 4), (21, 4), (7, 3)) == tuple(tokens_of(connection, each) for each in (shop, second, other))
            assert sorted((shop, second)) == names_with_receipts(connection, second)
            selection = Selection(applications=tuple(names_with_receipts(connection, shop)))
            assert (3, 21) == (totals(connection, selection).receipts, totals(connection, selection).tokens)
            seen, place = [], None
            while True:
                page = newest_first.receipts(connection, limit=2, place=place, application=shop)
                seen += [row.response_id for row in page.rows]
                place = page.place
                if place is None:
                    break
        assert ["r4", "r2", "r1"] == seen
        assert [True, True, False] == [is_of(ledger.database, shop, name) for name in (shop, second, other)]


def test_claims_of_before_stand_for_every_key_of_the_application(url):
    """A key of a chain that claimed under its own id: its successors and predecessors are given the same response."""
    key, request = sha256(b"key").hexdigest(), sha256(b"request").hexdigest()
    with closing(KeyRing(url, PEPPER)) as keys, closing(Ledger(url)) as ledger:
        first = keys.create("application", "shop", actor="test")
        second = key_id(keys.rotate(key_id(first), actor="test"))
        claims = Claims(ledger.database)
        claims.claim(second, key, request, "r1")
        ledger.append(make_receipt("r1"))

        assert "r1" == claims.claim(key_id(first), key, request, "r2").response_id
