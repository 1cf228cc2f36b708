"""Keys are made once per fraction and close, committed to before they choose, and revealed by the close alone."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from hashlib import sha256

import pytest
from sqlalchemy import text

from rewards.errors import CreditError, LedgerError
from rewards.ledger.ledger import Ledger
from rewards.sampled_credit import keys
from rewards.sampled_credit.keys import COMMITTED, SamplingKeys, put_in_force, renew, reveal
from rewards.sampled_credit.rule import SamplingRule
from rewards.store import events
from rewards.store.database import now_us
from tests.rewards.books import unguarded
from tests.rewards.sampled_credit.sampled import sampled


def committed(ledger):
    """What the events commit to: (consortium, fraction, key's hash)."""
    with ledger.database.read() as connection:
        told = events.find(connection, kinds=[COMMITTED])
    return [(event.subject, event.document["fraction"], event.document["key_sha256"]) for event in told]


def test_without_a_fraction_everything_is_measured_and_nothing_is_written(ledger):
    """A ledger that is told no fraction, or 1, has no key, no event, and the rule of always."""
    assert not put_in_force(ledger.database, "demo", 1, "tester")

    assert SamplingRule() == SamplingKeys(ledger.database).rule("demo", now_us())
    assert [] == committed(ledger)


def test_a_fraction_is_committed_to_before_it_chooses(ledger):
    """The event holds the hash of the key that then decides; the same fraction again changes nothing."""
    before_us = now_us()
    assert put_in_force(ledger.database, "demo", "0.1", "tester")
    assert not put_in_force(ledger.database, "demo", "0.10", "tester")

    rules = SamplingKeys(ledger.database)
    rule = rules.rule("demo", now_us())
    assert [("demo", "0.1", sha256(rule.key).hexdigest())] == committed(ledger)
    assert (100_000, SamplingRule(), SamplingRule()) == (
        rule.millionths,
        rules.rule("demo", before_us - 1),
        rules.rule("other", now_us()),
    )


def test_each_fraction_and_consortium_has_a_key_of_its_own(ledger):
    """Another fraction gets another key, the fraction 1 none, and consortia share none."""
    for consortium, fraction in (("demo", "0.1"), ("other", "0.1"), ("demo", "0.5"), ("demo", "1"), ("demo", "0.1")):
        assert put_in_force(ledger.database, consortium, fraction, "tester")

    told = committed(ledger)
    hashes = [key_sha256 for _, _, key_sha256 in told]
    assert ["0.1", "0.1", "0.5", "1", "0.1"] == [fraction for _, fraction, _ in told]
    assert (None, 5) == (hashes[3], len(set(hashes)))


def test_a_close_reveals_every_key_before_it_and_renews_those_in_force(ledger):
    """Each key is revealed once; a consortium that is sampled goes on with a new one, one that is not has none."""
    for consortium, fraction in (("demo", "0.1"), ("other", "0.1"), ("demo", "0.5"), ("other", "1")):
        put_in_force(ledger.database, consortium, fraction, "tester")
    with ledger.database.write() as connection:
        first = reveal(connection, 0)
        closed = events.record(connection, "period.draft", "2026-11", "tester", {})
        renew(connection, "tester")
        second = reveal(connection, closed)

    assert ["demo", "other", "demo"] == [key.consortium for key in first]
    assert [hash_ for *_, hash_ in committed(ledger)[:3]] == [sha256(key.key).hexdigest() for key in first]
    assert ["demo"] == [key.consortium for key in second]
    assert 4 == len({key.key for key in (*first, *second)})
    assert 500_000 == SamplingKeys(ledger.database).rule("demo", now_us() + 1).millionths


def test_a_key_that_was_exchanged_is_not_revealed(ledger, url):
    """A key that is not the one in the event stops the close by a line that names the event."""
    put_in_force(ledger.database, "demo", "0.1", "tester")
    with unguarded(url) as connection:
        connection.execute(text("UPDATE sampling_rules SET secret = repeat('00', 32)" if "postgresql" in url else
                                "UPDATE sampling_rules SET secret = hex(zeroblob(32))"))  # fmt: skip
    with ledger.database.read() as connection, pytest.raises(LedgerError, match="event 4 is not the one"):
        reveal(connection, 0)


def test_rules_are_append_only(ledger, url):
    """The database refuses to change, delete or replace a rule."""
    put_in_force(ledger.database, "demo", "0.1", "tester")
    for statement in ("UPDATE sampling_rules SET at_us = 0", "DELETE FROM sampling_rules"):
        with pytest.raises(LedgerError, match="append-only"), ledger.database.write() as connection:
            connection.execute(text(statement))


@pytest.mark.parametrize("fraction", [0, "0.0000001", 2])
def test_what_is_no_fraction_is_not_put_in_force(ledger, fraction):
    """Nothing is written for a fraction that is none."""
    with pytest.raises(CreditError, match="credit fraction"):
        put_in_force(ledger.database, "demo", fraction, "tester")

    assert [] == committed(ledger)


def test_what_was_read_is_read_again_beside(sqlite_url, monkeypatch):
    """A new rule is noticed without waiting; while the ledger is away the last ones decide, but not for ever."""
    ledger = Ledger(sqlite_url)
    put_in_force(ledger.database, "demo", "0.1", "tester")
    rules = SamplingKeys(ledger.database)
    assert 100_000 == rules.rule("demo", now_us()).millionths
    put_in_force(ledger.database, "demo", "0.5", "tester")
    monkeypatch.setattr(keys, "REFRESH_S", 0.0)
    rules.rule("demo", now_us())
    for thread in threading.enumerate():
        if thread.name == "protoken-sampling-keys":
            thread.join()
    monkeypatch.setattr(keys, "REFRESH_S", 1000.0)

    assert 500_000 == rules.rule("demo", now_us()).millionths
    ledger.close()
    monkeypatch.setattr(keys, "MOST_STALE_S", 0.0)
    with pytest.raises(LedgerError, match="sampling keys of 'demo' were read"):
        rules.rule("demo", now_us())
    assert SamplingRule() == rules.rule("other", now_us())


def test_who_asks_while_the_first_reading_ends_gets_its_rules(ledger, monkeypatch):
    """Not that they are old: before, the rules were there a moment before the time they were read at."""
    put_in_force(ledger.database, "demo", "0.1", "tester")
    rules = SamplingKeys(ledger.database)
    read = ledger.database.read
    others = []

    @contextmanager
    def read_slowly():
        with read() as connection:
            yield connection
            if not others:
                others.append(ThreadPoolExecutor(1).submit(rules.rule, "demo", now_us()))
                wait(others, timeout=0.1)

    monkeypatch.setattr(ledger.database, "read", read_slowly)
    monkeypatch.setattr(keys, "MOST_STALE_S", 30.0)  # less than any machine is up that runs this

    assert 100_000 == rules.rule("demo", now_us()).millionths
    assert [100_000] == [other.result().millionths for other in others]


def test_pending_receipts_are_booked_and_reversed(ledger):
    """What was not measured stands on its account, as all that is booked; its reversal takes it back."""
    rule = SamplingRule(100_000, bytes(32))
    for number in range(40):
        ledger.append(sampled(f"r{number}", rule, tokens=number + 1))
    pending = sum(number + 1 for number in range(40) if not rule.is_measured(f"r{number}")) * 1_000_000

    assert pending == ledger.balances()["pending"]
    assert sum(ledger.balances().values()) == ledger.tokens() * 1_000_000 == 820_000_000
    first = next(number for number in range(40) if not rule.is_measured(f"r{number}"))
    ledger.reverse(f"r{first}", "a test", "tester")
    assert pending - (first + 1) * 1_000_000 == ledger.balances()["pending"]


def test_two_who_set_the_same_fraction_make_one_key(url):
    """Services that start at once on one ledger commit to one rule."""
    ledgers = [Ledger(url) for _ in range(4)]
    threads = [
        threading.Thread(target=put_in_force, args=(ledger.database, "demo", "0.1", "tester")) for ledger in ledgers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 1 == len(committed(ledgers[0]))
    for ledger in ledgers:
        with closing(ledger):
            pass
