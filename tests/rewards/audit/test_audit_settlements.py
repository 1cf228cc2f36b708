"""The audit settles every period a second time: honest ones pass, whatever happened, and altered ones are named."""

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from rewards import periods
from rewards.audit.replay import audit
from rewards.credit import canonical_bytes
from rewards.errors import RewardsError
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import seal
from rewards.periods import holds
from rewards.settlement.policy import Policy
from rewards.store.database import now_us
from tests.rewards.books import KEY, ORIGIN, unguarded
from tests.rewards.conftest import new_database
from tests.rewards.receipts import MEMBERS, make_receipt

HOUR_US = 3_600_000_000
APPLICATIONS = ("0123456789ab", "ba9876543210")
SHARES = [{"bank": 0.25, "clinic": 0.5, "rider": 0.0}, {"bank": 1 / 3, "clinic": 1 / 3, "rider": 1 / 3 - 1e-9}]
POLICIES = [
    Policy(pool=1001, currency="EUR"),
    Policy(price_per_million_tokens=123_456_789, currency="EUR", dispute_days=1, grace_hours=1),
    Policy.from_mapping(
        {
            "pool": 7,
            "currency": "JPY",
            "minor_digits": 0,
            "commons": "distribute",
            "fee_percent": 10,
            "holdback_percent": "33.3",
            "holdback_release_after": 2,
            "minimum_payout": 2,
            "cap_percent": 60,
            "dispute_days": 2,
        }
    ),
    Policy(allocation="user_centric", fees=dict.fromkeys(APPLICATIONS, 500), currency="EUR"),
]
NAMES = [f"r{number}" for number in range(8)]
MOVES = st.one_of(
    st.tuples(st.just("book"), st.integers(0, 7), st.integers(-30, 30)),
    st.tuples(st.just("book"), st.integers(0, 7), st.just(0)),
    st.tuples(st.just("early"), st.integers(0, 7), st.just(0)),
    st.tuples(st.just("reverse"), st.integers(0, 7), st.just(0)),
    st.tuples(st.just("hold"), st.integers(0, 10), st.just(0)),
    st.tuples(st.just("release"), st.integers(0, 5), st.just(0)),
    st.tuples(st.just("close"), st.integers(0, 3), st.integers(0, 5)),
    st.tuples(st.just("finalise"), st.just(0), st.just(0)),
    st.tuples(st.just("wait"), st.integers(1, 60), st.just(0)),
    st.tuples(st.just("pay"), st.just(0), st.just(0)),
    st.tuples(st.just("seal"), st.just(0), st.just(0)),
)


class Play:
    """A ledger that moves are made on, with a clock of its own; a move that is refused changes nothing."""

    def __init__(self, url, monkeypatch):
        self.ledger = Ledger(url)
        self.now_us = now_us() + 1_000_000
        for module in ("periods.transitions", "periods.period_end", "store.events", "ledger.ledger", "log.checkpoints"):
            monkeypatch.setattr(f"rewards.{module}.now_us", self.clock)

    def clock(self, *_):
        self.now_us += 1000
        return self.now_us

    def make(self, kind, one, two):
        with suppress(RewardsError):
            getattr(self, kind)(one, two)

    def book(self, number, hours):
        self.append(number, f"{NAMES[number]}-{hours}", self.now_us + hours * HOUR_US)

    def early(self, number, _):
        """By a clock that is a few minutes ahead."""
        self.append(number, f"{NAMES[number]}-early", self.now_us + HOUR_US // 12)

    def append(self, number, name, created_at_us):
        receipt = make_receipt(name, 1 + number, SHARES[number % 2], created_at_us)
        self.ledger.append(replace(receipt, application=APPLICATIONS[number % 2]))

    def reverse(self, number, _):
        self.ledger.reverse(f"{NAMES[number]}-0", "wrong", "me")

    def hold(self, number, _):
        kind, target = ("response", f"{NAMES[number]}-0") if number < 8 else ("client", list(MEMBERS)[number - 8])
        holds.place(self.ledger, kind, target, "doubt", "me")

    def release(self, number, _):
        active = [each.hold_id for each in holds.all_holds(self.ledger) if each.released_at_us is None]
        if active:
            holds.release(self.ledger, active[number % len(active)], "settled", "me")

    def close(self, policy, hours):
        until_us = self.now_us - hours * HOUR_US if hours else None
        name = f"p{len(periods.all(self.ledger)) + 1}"
        periods.close(self.ledger, name, POLICIES[policy], "me", until_us)

    def finalise(self, *_):
        periods.finalise(self.ledger, periods.all(self.ledger)[-1].name, "me") if periods.all(self.ledger) else None

    def wait(self, hours, _):
        self.now_us += hours * HOUR_US

    def pay(self, *_):
        for period in periods.all(self.ledger):
            if period.state == "final":
                periods.pay(self.ledger, period.name, "bank 1", "me")

    def seal(self, *_):
        seal(self.ledger, KEY, ORIGIN)


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(moves=st.lists(MOVES, min_size=15, max_size=40))
def test_honest_books_pass_whatever_happened(prepared_file, tmp_path_factory, moves):
    """Late and early receipts, reversals before and after a close, holds, disputes, every kind of policy: all pass."""
    url = f"sqlite:///{shutil.copy(prepared_file, tmp_path_factory.mktemp('play'))}"
    with pytest.MonkeyPatch.context() as monkeypatch:
        play = Play(url, monkeypatch)
        for move in moves:
            play.make(*move)
        play.ledger.close()
    report = audit(url)

    assert report.difference is None, str(report.difference)


def prepare(url):
    Ledger.prepare(url)
    ledger = Ledger(url)
    ledger.register("demo", MEMBERS)
    ledger.close()


STORY = [
    *(("book", number, 0) for number in range(3)),
    ("early", 4, 0),
    ("book", 3, 0),
    ("hold", 1, 0),
    ("close", 2, 0),
    ("hold", 9, 0),
    ("wait", 60, 0),
    ("finalise", 0, 0),
    ("pay", 0, 0),
    ("reverse", 2, 0),
    ("release", 0, 0),
    ("book", 5, -20),
    ("book", 6, 0),
    ("close", 3, 0),
    ("book", 7, 0),
    ("close", 1, 0),
    ("reverse", 7, 0),
    ("wait", 30, 0),
    ("finalise", 0, 0),
    ("book", 0, -40),
    ("close", 2, 0),
    ("wait", 60, 0),
    ("finalise", 0, 0),
]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def told(request, tmp_path_factory, postgresql):
    """The URL of a ledger with four final periods that are not sealed: the audit has nothing but its arithmetic."""
    folder = tmp_path_factory.mktemp("told")
    url = f"sqlite:///{folder}/ledger.db" if request.param == "sqlite" else new_database(postgresql)
    prepare(url)
    with pytest.MonkeyPatch.context() as monkeypatch:
        play = Play(url, monkeypatch)
        for move in STORY:
            getattr(play, move[0])(*move[1:])
        play.ledger.close()
    return url


def events_of(url):
    """Sequence -> kind, subject and document of the events of periods, holds and statements."""
    ledger = Ledger(url)
    with ledger.database.read() as connection:
        query = (
            "SELECT sequence, kind, subject, document FROM events WHERE kind <> 'client.registered' ORDER BY sequence"
        )
        found = {row[0]: (row[1], row[2], json.loads(row[3])) for row in connection.execute(text(query))}
    ledger.close()
    return found


def rewrite(url, sequence, document):
    """Another document in an event, spelt as the books spell it."""
    with unguarded(url) as connection:
        parameters = {"sequence": sequence, "document": canonical_bytes(document).decode()}
        connection.execute(text("UPDATE events SET document = :document WHERE sequence = :sequence"), parameters)


def places(document, path=()):
    """Paths to every value that is no object or list with something in it."""
    if isinstance(document, dict | list) and document:
        for name, value in document.items() if isinstance(document, dict) else enumerate(document):
            yield from places(value, (*path, name))
    else:
        yield path


def changed(document, path):
    """A copy with another value at a path, and with a hash that fits again where the document has one."""
    copy = json.loads(json.dumps(document))
    parent = copy
    for step in path[:-1]:
        parent = parent[step]
    old = parent[path[-1]]
    parent[path[-1]] = other(old)
    if "sha256" in copy and path != ("sha256",):
        fields = {name: value for name, value in copy.items() if name != "sha256"}
        copy["sha256"] = sha256(canonical_bytes(fields)).hexdigest()
    return copy


def other(value):
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, list):
        return [1]
    if isinstance(value, dict) or value is None:
        return {"p1": {"bank": 1}}
    if value.lstrip("-").isdecimal():
        return str(int(value) + 1)
    return value + "x"


def test_the_story_has_everything(told):
    """The books altered below hold drafts, disputes, holds, claw-backs, late and deferred receipts; all pass."""
    found = [(kind, document) for kind, _, document in events_of(told).values()]
    finals = [document for kind, document in found if kind == "period.final"]
    lines = [line for document in finals for line in document["settlement"]["lines"]]

    assert audit(told).is_ok
    assert 4 == len(finals)
    assert {"period.draft", "period.disputed", "hold.placed", "hold.released", "statement"} <= {
        kind for kind, _ in found
    }
    for field in ("deferred", "left_out", "taken_in", "reversed", "clawbacks"):
        assert any(document[field] for document in finals), field
    for field in ("clawback", "held", "holdback", "carried_in", "late"):
        assert any(line[field] not in (0, "0") for line in lines), field
    assert any(document["settlement"]["standing"] for document in finals)


@pytest.mark.parametrize("kind", ["period.draft", "period.final", "statement"])
def test_every_altered_field_of_a_settlement_is_found(told, kind):
    """Every value in every draft, final settlement and statement, altered in turn under a hash that fits: named."""
    for sequence, (found, _, document) in events_of(told).items():
        paths = list(places(document)) if found == kind else []
        step = 17 if not told.startswith("sqlite") else 4 if kind == "statement" else 2  # other documents, other fields
        for path in paths[sequence % step :: step]:
            if kind == "period.draft" and (path[0] in ("until_us", "as_of_us") or path[1:2] == ("policy",)):
                continue  # who closes chooses these; what they lead to is checked, and a seal guards them
            rewrite(told, sequence, changed(document, path))
            difference = audit(told).difference

            assert ("events", sequence) == (difference.table, difference.key), (path, str(difference))
        rewrite(told, sequence, document)
    assert audit(told).is_ok


def test_a_statement_that_is_missing_is_named(told):
    """A client without a statement of a final period is named with the period."""
    sequence = next(
        key for key, (kind, subject, _) in events_of(told).items() if (kind, subject) == ("statement", "p1/clinic")
    )
    with unguarded(told) as connection:
        connection.execute(text(f"UPDATE events SET kind = 'statement.lost' WHERE sequence = {sequence}"))
    difference = audit(told).difference
    with unguarded(told) as connection:
        connection.execute(text(f"UPDATE events SET kind = 'statement' WHERE sequence = {sequence}"))

    assert ("statements", "the statement of 'clinic' for 'p1'") == (difference.field, difference.expected)


@pytest.mark.parametrize(
    ("kind", "column", "value"),
    [
        ("period.draft", "subject", "p9"),
        ("period.final", "subject", "p9"),
        ("period.final", "kind", "period.paid"),
        ("period.paid", "kind", "period.disputed"),
        ("period.disputed", "kind", "period.draft"),
        ("hold.released", "subject", "hold-9"),
        ("hold.placed", "kind", "hold.forgotten"),
        ("statement", "subject", "p1/stranger"),
        ("statement", "subject", "p9/clinic"),
        ("statement", "kind", "period.final"),
    ],
)
def test_a_move_that_is_not_possible_is_found(told, kind, column, value):
    """A move of a period that does not follow, a hold or statement of nothing: found at the first event that breaks."""
    found = events_of(told)
    sequence = next(key for key, (each, *_) in found.items() if each == kind)
    old = found[sequence][0 if column == "kind" else 1]
    statement = f"UPDATE events SET {column} = :value WHERE sequence = :sequence"
    with unguarded(told) as connection:
        connection.execute(text(statement), {"value": value, "sequence": sequence})
    difference = audit(told).difference
    with unguarded(told) as connection:
        connection.execute(text(statement), {"value": old, "sequence": sequence})

    assert "events" == difference.table
    assert sequence <= difference.key
    assert audit(told).is_ok
