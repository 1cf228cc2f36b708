"""Small sealed books for tests, and how to write past the ledger. Knows both databases."""

from contextlib import contextmanager

from sqlalchemy import NullPool, create_engine, text

from rewards.keys.ring import KeyRing
from rewards.ledger.idempotency_claims import Claims
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import seal
from rewards.signing.keys import SigningKey
from rewards.store.database import now_us
from tests.rewards.receipts import MEMBERS, make_receipt

ORIGIN = "consortium.example/ledger"
KEY = SigningKey(ORIGIN, bytes(range(32)))
OTHER_KEY = SigningKey(ORIGIN, bytes(32))
BOOKS = ("receipts", "entries", "events", "leaves", "nodes", "checkpoints")


def write_books(url: str) -> list[str]:
    """Receipts, a reversal, clients, bearer keys and claims, sealed in three steps; returns the checkpoints' notes."""
    Ledger.prepare(url)
    ledger = Ledger(url)
    ledger.register("demo", MEMBERS)
    keys = KeyRing(url, bytes(32))
    notes = []
    for step in range(3):
        for number in range(3):
            ledger.append(make_receipt(f"r{3 * step + number}", tokens=5 + number))
        if step == 1:
            ledger.reverse("r1", "a test question", "tester")
            limits = {"token_budget": 1000, "requests_per_minute": 60, "concurrency": 4, "weight": 2}
            shop = keys.create("application", "shop", actor="tester", **limits)
            keys.create("member", "bank", actor="tester", client="bank", expires_at_us=2**52)
            keys.rotate(shop.split("_")[1], actor="tester")
        if step == 2:
            keys.revoke(shop.split("_")[1], actor="tester")
        seal(ledger, KEY, ORIGIN)
        with ledger.database.read() as connection:
            notes.append(connection.execute(text("SELECT note FROM checkpoints ORDER BY size DESC")).scalars().first())
    _use(keys, ledger)
    keys.close()
    ledger.close()
    return notes


def _use(keys: KeyRing, ledger: Ledger) -> None:
    """What applications leave behind: a last use, a claim under way, and one that ended and was tried again."""
    keys.note_use(next(key for key in keys.list() if key.state(now_us()) == "valid"))
    claims = Claims(ledger.database)
    for response_id, key in (("c0", "a"), ("c1", "b"), ("c2", "b")):
        claims.claim("shop", key * 64, "f" * 64, response_id)
        if response_id == "c1":
            claims.release([response_id])


@contextmanager
def unguarded(url: str):
    """A transaction of somebody who owns the database: no trigger, foreign key or check stands in the way."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)
    with engine.begin() as connection:
        (_drop_guards_postgresql if engine.dialect.name == "postgresql" else _drop_guards_sqlite)(connection)
        yield connection


def _drop_guards_postgresql(connection):
    connection.execute(text("SET LOCAL session_replication_role = replica"))
    query = "SELECT conrelid::regclass, conname FROM pg_constraint WHERE contype = 'c' AND connamespace = 2200"
    for table, name in connection.execute(text(query)).all():
        connection.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT {name}"))


def _drop_guards_sqlite(connection):
    triggers = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars().all()
    for name in triggers:
        connection.execute(text(f"DROP TRIGGER {name}"))
    connection.execute(text("PRAGMA ignore_check_constraints = ON"))
