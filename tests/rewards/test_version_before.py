"""Books of the version before, on both databases: they open, migrate, verify, settle on, keep what was promised."""

import json
from dataclasses import fields, replace

import pytest

from rewards import periods, statements
from rewards.audit.replay import audit
from rewards.credit import Receipt
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from rewards.settlement.policy_file import load_policy
from rewards.signing.keys import SigningKey, VerifyKey
from tests.fixtures import copied, copied_to_postgresql

PUBLIC = ("2026-01", "2026-02", "2026-03")
CLIENTS = ("north", "south", "rider")
BALANCES = {"commons": 309_216_699, "north": 74_700_660, "rider": 0, "south": 8_082_641}


@pytest.fixture
def before(tmp_path):
    """All that the version before kept, in a folder of its own."""
    return copied(tmp_path)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, before):
    """The ledger of the version before, as it was left, on each database in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{before}/ledger.db"
    return copied_to_postgresql(request.getfixturevalue("postgresql"))


@pytest.fixture
def ledger(url):
    """That ledger, migrated and open."""
    Ledger.migrate(url)
    ledger = Ledger(url)
    yield ledger
    ledger.close()


@pytest.fixture
def public_keys(before):
    """The public keys that members of then hold."""
    return [VerifyKey.decode(line) for line in (before / "public-keys.txt").read_text().splitlines()]


def test_its_books_verify_and_come_to_what_they_came_to(ledger, url, before, public_keys):
    """After the migration every row verifies under the keys and both checkpoints that were handed out before it."""
    for name in ("checkpoint-early.txt", "checkpoint.txt"):
        report = audit(url, keys=public_keys, held=(before / name).read_text())

        assert report.difference is None
        assert BALANCES == report.balances
        assert 392 == report.tokens
        assert (97, 1) == (report.size, report.unsealed)


def test_its_periods_are_as_they_were_settled(ledger):
    """Closed periods are read as they stand, with the pools and states of then."""
    found = [(period.name, period.state, period.settlement.pool) for period in periods.all(ledger)]
    expected = [
        ("2026-01", "paid", 1_000_000),
        ("2026-02", "paid", 111_428),
        ("2026-03", "final", 100_501),
        ("2026-04", "disputed", 700_001),
    ]

    assert expected == found


def test_its_draft_is_made_final_and_the_open_period_is_previewed(ledger, url, before):
    """The disputed draft is finalised, and what is open settles to the last cent by a policy of then."""
    periods.finalise(ledger, "2026-04", "tester")
    preview = periods.preview(ledger, "2026-05", load_policy(before / "policies" / "open.yaml")).settlement

    assert 500_000 == preview.pool == preview.fee + sum(line.gross for line in preview.lines)
    assert audit(url).difference is None


def test_its_statements_verify_and_are_issued_again(ledger, before, public_keys):
    """Statements of then verify with today's code, and the ledger still gives the same bodies."""
    key = SigningKey.load(before / "signing.key")
    for period in PUBLIC:
        for client in CLIENTS:
            document = statements.load((before / "statements" / period / f"{client}.json").read_bytes())
            with ledger.database.read() as connection:
                again = statements.issue(connection, period, client, key)

            assert (period, client) == _whose(statements.verify(document, public_keys))
            assert (period, client) == _whose(statements.verify(again, public_keys))
            assert _body(document) == _body(again)


def test_its_keys_open_what_they_opened(ledger, url, before):
    """Keys of then verify under the pepper of then; one that was rotated and one that was revoked do not."""
    keys = KeyRing(url, (before / "ledger.db.pepper").read_bytes())
    presented = json.loads((before / "keys.json").read_text())
    found = {name: None if (key := keys.verify(text)) is None else key.role for name, text in presented.items()}
    keys.close()

    expected = {
        "shop": "application",
        "desk": "application",
        "north's desk": "member",
        "treasurer": "operator",
        "auditors": "auditor",
        "admins": "admin",
        "lost": None,
        "old shop": None,
    }
    assert expected == found


def test_its_ledger_books_on(ledger, url):
    """A receipt of then comes back as booked, and a new one follows the old ones."""
    first = ledger.receipts_after(0, 1)[0]
    again = Receipt(**{field.name: getattr(first, field.name) for field in fields(Receipt)})
    fresh = replace(again, response_id="after the migration")

    assert (1, True) == (ledger.append(again).sequence, ledger.append(again).replayed)
    assert (57, False) == (ledger.append(fresh).sequence, ledger.is_booked("never asked for"))
    assert audit(url).difference is None


def _whose(checked):
    return checked.period, checked.client


def _body(document):
    return {name: value for name, value in document.items() if name not in {"signature", "log"}}
