"""The audit makes every choice again once its key is revealed, and settles what was pending a second time."""

import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from rewards import periods
from rewards.audit.replay import audit
from rewards.credit import canonical_bytes
from rewards.errors import RewardsError
from rewards.ledger.ledger import Ledger
from rewards.periods import holds
from rewards.sampled_credit.keys import SamplingKeys, put_in_force
from rewards.settlement.policy import Policy
from tests.rewards.audit.test_audit import changes, named, rows_of, update
from tests.rewards.audit.test_audit_settlements import (
    APPLICATIONS,
    HOUR_US,
    MOVES,
    SHARES,
    Play,
    changed,
    events_of,
    places,
    prepare,
    rewrite,
)
from tests.rewards.books import unguarded
from tests.rewards.conftest import new_database
from tests.rewards.sampled_credit.sampled import sampled

FRACTIONS = ("0.5", "0.2", "1")
PAY = Policy(pool=1001, currency="EUR")


class SampledPlay(Play):
    """A play in which responses are chosen by the rule in force, and rules change; names never come twice."""

    def __init__(self, url, monkeypatch):
        super().__init__(url, monkeypatch)
        self.numbers = count()
        self.names = []

    def append(self, number, name, created_at_us):
        name = f"{name.partition('-')[0]}.{next(self.numbers)}"
        rule = SamplingKeys(self.ledger.database).rule("demo", created_at_us)
        receipt = sampled(name, rule, 1 + number, SHARES[number % 2])
        model = ("a" if number % 4 else "b") * 64
        receipt = replace(
            receipt, application=APPLICATIONS[number % 2], model_sha256=model, created_at_us=created_at_us
        )
        self.ledger.append(receipt)
        self.names.append(name)

    def reverse(self, number, _):
        self.ledger.reverse(self.names[-(number * 3 + 1)], "wrong", "me")

    def hold(self, number, _):
        holds.place(self.ledger, "response", self.names[-(number * 2 + 1)], "doubt", "me")

    def fraction(self, number, _):
        put_in_force(self.ledger.database, "demo", FRACTIONS[number % 3], "me")

    def many(self, number, _):
        for each in range(8 + number):
            self.book(each % 8, 0)

    def make(self, kind, one, two):
        with suppress(RewardsError, IndexError):
            getattr(self, kind)(one, two)


SAMPLED_MOVES = st.one_of(
    MOVES,
    st.tuples(st.just("many"), st.integers(0, 20), st.just(0)),
    st.tuples(st.just("fraction"), st.integers(0, 2), st.just(0)),
)


@pytest.mark.long
@settings(max_examples=25, deadline=None)
@given(moves=st.lists(SAMPLED_MOVES, min_size=10, max_size=30))
def test_honest_books_pass_whatever_was_measured(prepared_file, tmp_path_factory, moves):
    """Rules that change, late and early receipts, reversals, holds, every policy: all choices and settlements pass."""
    url = f"sqlite:///{shutil.copy(prepared_file, tmp_path_factory.mktemp('play'))}"
    with pytest.MonkeyPatch.context() as monkeypatch:
        play = SampledPlay(url, monkeypatch)
        for move in [("fraction", 0, 0), ("many", 8, 0), *moves]:
            play.make(*move)
        play.ledger.close()
    report = audit(url)

    assert report.difference is None, str(report.difference)


STORY = [
    ("fraction", 1, 0), ("wait", 2, 0), ("many", 40, 0), ("early", 3, 0),
    *(("hold", number, 0) for number in range(1, 5)), ("close", 0, 0),
    ("pay", 0, 0), ("release", 0, 0), ("release", 0, 0),
    *(("reverse", number, 0) for number in range(5, 10)), ("fraction", 0, 0), ("many", 20, 0), ("book", 5, -1),
    ("reverse", 0, 0), ("reverse", 1, 0), ("close", 3, 0), ("many", 20, 0),
    ("close", 2, 0), ("wait", 60, 0), ("finalise", 0, 0),
]  # fmt: skip


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def told(request, tmp_path_factory, postgresql):
    """The URL of a ledger with three final periods of sampled responses; nothing is sealed."""
    folder = tmp_path_factory.mktemp("sampled")
    url = f"sqlite:///{folder}/ledger.db" if request.param == "sqlite" else new_database(postgresql)
    prepare(url)
    secrets = (sha256(b"%d" % number).digest() for number in count())
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(
            "rewards.sampled_credit.keys.secrets.token_bytes", lambda _: next(secrets)
        )  # chooses the same
        play = SampledPlay(url, monkeypatch)
        for move in STORY:
            getattr(play, move[0])(*move[1:])
        play.ledger.close()
    return url


def finals(url):
    return [document for kind, _, document in events_of(url).values() if kind == "period.final"]


def test_the_story_has_everything(told):
    """The books altered below hold revealed keys, several strata, pending credit held, late and taken back."""
    documents = finals(told)
    samplings = [document["settlement"]["sampling"] for document in documents]

    assert audit(told).is_ok
    assert 3 == len(documents)
    assert all(document["sampling_keys"] for document in documents)
    assert {"0.2", "0.5"} == {stratum["fraction"] for each in samplings for stratum in each["strata"]}
    assert any("application" in stratum for each in samplings for stratum in each["strata"])
    assert any("pending" in credit for document in documents for credit in document["reversed"].values())
    assert any(document["clawbacks"] for document in documents)
    assert any(each["late_credit"] != "0" for each in samplings)
    assert any(each["held_credit"] != "0" for each in samplings)


def test_what_is_settled_is_all_that_was_generated(told):
    """The credit of a period is its tokens to the last unit, and what was pending is settled whole."""
    for document in finals(told):
        settlement = document["settlement"]
        sampling = settlement["sampling"]
        settled = sum(int(amount) for amount in sampling["settled"].values())

        assert sum(int(line["credit"]) for line in settlement["lines"]) == settlement["tokens"] * 1_000_000
        assert settled == sum(int(stratum["pending_credit"]) for stratum in sampling["strata"])


@pytest.mark.parametrize("kind", ["period.draft", "period.final", "statement"])
def test_every_altered_field_of_a_sampled_settlement_is_found(told, kind):
    """Every value about sampling in drafts, finals and statements, altered in turn under a hash that fits: named."""
    for sequence, (told_kind, _, document) in events_of(told).items():
        paths = [path for path in places(document) if kind == told_kind and {"sampling", "sampling_keys"} & set(path)]
        step = 29 if not told.startswith("sqlite") else 7  # other documents, other fields
        for path in paths[sequence % step :: step]:
            rewrite(told, sequence, changed(document, path))
            difference = audit(told).difference

            assert "events" == difference.table, (path, str(difference))
            assert sequence == difference.key, (path, str(difference))
        if paths:
            rewrite(told, sequence, document)
    assert audit(told).is_ok


@pytest.mark.parametrize("column", ["sequence", "consortium", "millionths", "secret", "at_us"])
def test_every_altered_field_of_a_rule_is_found(told, column):
    """Every stored rule is what its event committed to, its secret by its hash, which alone is shown."""
    with unguarded(told) as connection:
        rows = rows_of(connection, "sampling_rules")
    for row, value in changes("sampling_rules", column, rows):
        with unguarded(told) as connection:
            update(connection, "sampling_rules", row, column, value)
        difference = audit(told).difference
        with unguarded(told) as connection:
            update(connection, "sampling_rules", {**row, column: value}, column, row[column])

        assert named(difference, "sampling_rules", row["sequence"], row["sequence"] + 1000), (row, value, difference)
        assert column != "secret" or str(row["secret"]) not in str(difference)
    assert 5 == len(rows)
    assert audit(told).is_ok


def response(url, *, measured):
    """The first response that was measured, or that was not."""
    ledger = Ledger(url)
    rows = [each for each in ledger.receipts_after(0, 1000) if "sampling" in each.measurement]
    ledger.close()
    return next(each for each in rows if each.measurement["sampling"]["measured"] == measured)


def alter(url, receipt, measurement, amounts):
    """Another measurement and other entries of a receipt, under the payload hash that they have."""
    fields = ("response_id", "created_at_us", "application", "consortium", "model_sha256", "method", "settings",
              "version", "tokens", "duration_us")  # fmt: skip
    payload = {name: getattr(receipt, name) for name in fields} | {"measurement": measurement, "amounts": amounts}
    columns = {
        "measurement": canonical_bytes(measurement).decode(),
        "payload_sha256": sha256(canonical_bytes(payload)).hexdigest(),
        "sequence": receipt.sequence,
    }
    with unguarded(url) as connection:
        update = "UPDATE receipts SET measurement = :measurement, payload_sha256 = :payload_sha256"
        connection.execute(text(f"{update} WHERE sequence = :sequence"), columns)
        connection.execute(text("DELETE FROM entries WHERE receipt_sequence = :sequence"), columns)
        for account, amount in amounts.items():
            entry = {"sequence": receipt.sequence, "account": account, "amount": amount}
            connection.execute(text("INSERT INTO entries VALUES (:sequence, :account, :amount)"), entry)


@pytest.mark.parametrize("measured", [True, False])
def test_one_flipped_choice_is_found(told, measured):
    """One response that was measured though it had not to be, or the reverse, whole and rightly hashed: it is named."""
    receipt = response(told, measured=measured)
    sampling = {**receipt.measurement["sampling"], "measured": not measured}
    whole = receipt.tokens * 1_000_000
    alter(
        told,
        receipt,
        {**receipt.measurement, "sampling": sampling},
        {"pending": whole} if measured else {"bank": whole},
    )
    difference = audit(told).difference
    alter(told, receipt, receipt.measurement, receipt.amounts)

    assert ("receipts", receipt.sequence, "measurement.sampling.measured", not measured, measured) == (
        difference.table, difference.key, difference.field, difference.found, difference.expected,
    )  # fmt: skip
    assert audit(told).is_ok


@pytest.mark.parametrize(
    "changes",
    [
        None,
        {"fraction": "0.9"},
        {"fraction": "0.5"},
        {"key_sha256": "0" * 64},
        {"measured": 1},
        {"more": True},
    ],
)
def test_a_receipt_of_no_rule_that_was_in_force_is_found(told, changes):
    """A receipt that says nothing, another fraction or key, or says it otherwise: named with what was in force."""
    receipt = response(told, measured=True)
    measurement = dict(receipt.measurement)
    measurement["sampling"] = {**measurement["sampling"], **(changes or {})}
    if changes is None:
        del measurement["sampling"]
    alter(told, receipt, measurement, receipt.amounts)
    difference = audit(told).difference
    alter(told, receipt, receipt.measurement, receipt.amounts)

    assert ("receipts", receipt.sequence, "measurement.sampling") == (
        difference.table,
        difference.key,
        difference.field,
    )
    assert audit(told).is_ok


def test_a_response_that_is_not_measured_has_one_entry(told):
    """Credit of a client in a receipt that says it was not measured is found, and pending in one that was."""
    for measured, amounts in ((False, {"bank": 1_000_000}), (True, {"pending": 1_000_000})):
        receipt = response(told, measured=measured)
        alter(told, receipt, receipt.measurement, {each: amount * receipt.tokens for each, amount in amounts.items()})
        difference = audit(told).difference
        alter(told, receipt, receipt.measurement, receipt.amounts)

        assert ("entries", (receipt.sequence, "pending"), "amount") == (
            difference.table,
            difference.key,
            difference.field,
        )
    assert audit(told).is_ok


def test_a_key_that_was_revealed_chooses_nothing_more(prepared_file, tmp_path):
    """A response asked for an hour after the close and chosen by the old key, which everybody knows by then: found."""
    url = f"sqlite:///{shutil.copy(prepared_file, tmp_path)}"
    with pytest.MonkeyPatch.context() as monkeypatch:
        play = SampledPlay(url, monkeypatch)
        play.fraction(0, 0)
        play.many(8, 0)
        old = SamplingKeys(play.ledger.database).rule("demo", play.now_us)
        periods.close(play.ledger, "p1", PAY, "me")
        for minutes, expected in ((50, True), (20, False)):
            play.now_us += minutes * 60_000_000
            play.ledger.append(replace(sampled(f"late{minutes}", old), created_at_us=play.now_us))

            assert expected == audit(url).is_ok
        difference = audit(url).difference
        new = SamplingKeys(play.ledger.database).rule("demo", play.now_us)
        play.ledger.close()
    assert f"fraction 0.5 by {new.key_sha256}" == difference.expected


def test_responses_of_before_the_first_rule_name_none(prepared_file, tmp_path):
    """Where nothing was in force yet, everything is measured and nothing said; an hour later it has to be."""
    url = f"sqlite:///{shutil.copy(prepared_file, tmp_path)}"
    with pytest.MonkeyPatch.context() as monkeypatch:
        play = SampledPlay(url, monkeypatch)
        play.book(1, 0)
        play.fraction(0, 0)
        play.book(1, -2)
        assert audit(url).is_ok
        plain = sampled("plain", SamplingKeys(play.ledger.database).rule("demo", 0), 3)
        play.now_us += 2 * HOUR_US
        play.ledger.append(replace(plain, created_at_us=play.now_us))
        play.ledger.close()
    difference = audit(url).difference

    assert (3, "measurement.sampling", None) == (difference.key, difference.field, difference.found)


def test_a_draft_that_reveals_no_key_is_found(told):
    """A close that keeps a key back, or reveals another, is named: what it chose could be checked by nobody."""
    sequence, document = next(
        (key, document) for key, (kind, _, document) in events_of(told).items() if kind == "period.draft"
    )
    key = document["sampling_keys"][0]
    for keys in ([], [{**key, "key": "00" * 32}], [{**key, "event": 1}], [key, key]):
        fields = {name: value for name, value in {**document, "sampling_keys": keys}.items() if name != "sha256"}
        altered = {**fields, "sha256": sha256(canonical_bytes(fields)).hexdigest()}
        rewrite(told, sequence, altered)

        assert ("events", sequence) == (audit(told).difference.table, audit(told).difference.key)
    rewrite(told, sequence, document)
    assert audit(told).is_ok


def test_settled_shares_follow_the_measured_ones(told):
    """In the first period each account has of what was pending its part of the stratum's measured credit."""
    sampling = finals(told)[0]["settlement"]["sampling"]
    ledger = Ledger(told)
    document = finals(told)[0]
    rows = [each for each in ledger.receipts_after(0, document["window"]["up_to"]) if each.kind == "response"]
    ledger.close()
    counted = [each for each in rows if each.sequence not in {*document["left_out"], *document["deferred"]}]
    expected: Counter = Counter()
    for stratum in sampling["strata"]:
        own = [each for each in counted if each.model_sha256 == stratum["model_sha256"]]
        measured = Counter()
        for each in own:
            measured.update(each.amounts)
        pending = measured.pop("pending")
        for account, amount in (measured or {"commons": 1}).items():
            expected[account] += pending * amount / max(sum(measured.values()), 1)
    for account, amount in sampling["settled"].items():
        assert abs(int(amount) - expected[account]) < 2 * len(sampling["strata"])
