"""Periods, settled a second time from the receipts, and every client's statement held against its line.

Nothing of this is shared with the code that settles: `counting` says what goes in, `document` what comes out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlmodel import col

from rewards.audit.hashing import Document
from rewards.audit.report import DifferenceError, canonical_object, first_difference
from rewards.audit.sampled_credit import Commitments
from rewards.audit.settlement.counting import COMMONS, Count, CountFrame, count
from rewards.audit.settlement.document import (
    Circumstances,
    ExpectedSettlement,
    clawback_by_first_rule,
    gains_without,
    period_document,
    reversed_credit,
    settle,
)
from rewards.audit.settlement.pending import take_off
from rewards.audit.settlement.settle import FIRST_RULE, SECOND_RULE, Currency, Earnings
from rewards.audit.settlement.statements import statement
from rewards.audit.settlement.terms import Terms
from rewards.audit.source import Source, StoredRow
from rewards.store.tables import EventRow

_KINDS = (
    "client.registered",
    "sampling.committed",
    "hold.placed",
    "hold.released",
    "period.draft",
    "period.disputed",
    "period.final",
    "period.paid",
    "statement",
)
_AFTER = {"period.disputed": ("draft",), "period.final": ("draft", "disputed"), "period.paid": ("final",)}


def check_settlements(source: Source) -> None:
    """Follow the events of periods, holds and statements, and compute anew what they say.

    Raises:
        DifferenceError: an event is not what the rows before it lead to; or a statement is missing.
    """
    history = _History(source)
    query = select(EventRow).where(col(EventRow.kind).in_(_KINDS)).order_by(col(EventRow.sequence))
    for event in source.rows(query):
        document = canonical_object("events", event["sequence"], "document", event["document"])
        try:
            history.follow(event, document)
        except DifferenceError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            expected = f"a {event['kind']} that fits the receipts"
            raise DifferenceError(
                "events", event["sequence"], "document", actual=repr(error), expected=expected
            ) from error
    history.check_statements()


class _Period:
    """A period as its events leave it, and what was computed for it."""

    def __init__(self, document: Document, settlement: ExpectedSettlement) -> None:
        self.document = document
        self.settlement = settlement
        self.counted = Count()
        self.final_at = 0  # sequence of the event
        self.moves: list[Document] = []
        self.told: set[str] = set()  # clients with a statement
        self.registered: dict[str, tuple[str, str]] = {}  # client -> consortium, name, when it became final

    @property
    def state(self) -> str:
        return str(self.moves[-1]["kind"]).removeprefix("period.")


class _History:
    """What the events up to one say."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._periods: dict[str, _Period] = {}
        self._registered: dict[str, tuple[str, str]] = {}
        self._holds: dict[str, Document] = {}
        self._commitments = Commitments()
        self._has_explained = False

    def follow(self, event: StoredRow, document: Document) -> None:
        """Check an event against those before it and against the receipts."""
        kind, subject = event["kind"], event["subject"]
        if kind == "client.registered":
            consortium, _, client = subject.partition("/")
            others, name = self._registered.get(client, ("", document["name"]))
            self._registered[client] = (f"{others}, {consortium}" if others else consortium, name)
        elif kind == "sampling.committed":
            self._commitments.add(event, document)
        elif kind == "hold.placed":
            self._holds[subject] = document
        elif kind == "hold.released":
            del self._holds[subject]
        elif kind == "statement":
            self._check_statement(event, document)
        elif kind == "period.draft":
            self._check_order(event)
            told = document["settlement"]
            self._check_settled(event, document, told["policy"], self._rule(event, told))
            self._commitments = Commitments()
        else:
            self._move(event)
            if kind == "period.final":
                drafted = self._periods[subject].settlement
                self._check_settled(event, document, dict(drafted.policy), drafted.rule)

    def check_statements(self) -> None:
        """Whoever was registered when a period became final has a statement of it.

        Raises:
            DifferenceError: a statement is missing.
        """
        for name, period in self._periods.items():
            for client in period.registered:
                if client not in period.told:
                    what = f"the statement of {client!r} for {name!r}"
                    raise DifferenceError("events", period.final_at, "statements", actual=None, expected=what)

    def _check_order(self, event: StoredRow) -> None:
        """A period begins once, after the one before it is final."""
        name = event["subject"]
        if name in self._periods:
            raise DifferenceError("events", event["sequence"], "subject", actual=name, expected="a period that is new")
        for other, period in self._periods.items():
            if period.state in ("draft", "disputed"):
                what = f"period {other!r} to be final first"
                raise DifferenceError("events", event["sequence"], "kind", actual=event["kind"], expected=what)

    def _move(self, event: StoredRow) -> None:
        period = self._periods.get(event["subject"])
        state = None if period is None else period.state
        if period is None or state not in _AFTER[event["kind"]]:
            what = f"{event['kind']} after {' or '.join(_AFTER[event['kind']])}"
            raise DifferenceError("events", event["sequence"], "kind", actual=f"after {state}", expected=what)
        period.moves.append(event)

    def _rule(self, event: StoredRow, settlement: Document) -> int:
        """The rule that a draft names: once there was a second one, no period is settled by the first."""
        rule = settlement.get("rule", FIRST_RULE)
        had_second = any(period.settlement.rule == SECOND_RULE for period in self._periods.values())
        if rule != SECOND_RULE and (had_second or rule != FIRST_RULE):
            raise DifferenceError("events", event["sequence"], "document", actual=f"rule {rule}", expected="rule 2")
        return int(rule)

    def _check_settled(self, event: StoredRow, document: Document, policy: Document, rule: int) -> None:
        """Settle the period anew, with the holds of that moment, and compare every field of the document."""
        name, sequence = event["subject"], event["sequence"]
        names = list(self._periods)
        before = names[: names.index(name)] if name in self._periods else names
        earlier = {each: self._periods[each] for each in before}
        drafted = self._periods[name].document if name in self._periods else document
        terms = Terms.of(policy)
        frame = CountFrame.of(drafted, {name: period.document for name, period in earlier.items()}, terms.skew_us)
        counted = count(self._source, frame, self._held_targets("response"))
        told = {line["account"] for line in document["settlement"]["lines"]} & {COMMONS, *self._registered}
        taken = _clawbacks(counted, earlier) if rule != FIRST_RULE else {}
        around = Circumstances(
            window=(frame.after, frame.up_to),
            before=earlier[before[-1]].settlement if before else None,
            held_clients=frozenset(self._held_targets("client")),
            clawbacks=_by_currency(taken, earlier)
            if rule != FIRST_RULE
            else {terms.currency: _first_rule(counted, earlier)},
        )
        settlement = settle(name, policy, _earnings(counted, told), around, rule)
        keys = (
            self._commitments.reveal(document) if event["kind"] == "period.draft" else drafted.get("sampling_keys", [])
        )
        expected = period_document(frame, counted, settlement, drafted.get("as_of_us"), taken, keys)
        _require_same(sequence, "document", document, expected)
        period = self._periods.setdefault(name, _Period(expected, settlement))
        period.document, period.settlement, period.counted = expected, settlement, counted
        if event["kind"] == "period.draft":
            period.moves.append(event)
        else:
            period.final_at, period.registered = sequence, dict(self._registered)

    def _check_statement(self, event: StoredRow, document: Document) -> None:
        """A client's statement repeats its line of the final settlement, and what all are told alike."""
        sequence = event["sequence"]
        name, _, client = event["subject"].partition("/")
        period = self._periods.get(name)
        if period is None or not period.final_at or client not in period.registered or client in period.told:
            expected = "a client's one statement of a period that is final"
            raise DifferenceError("events", sequence, "subject", actual=event["subject"], expected=expected)
        whose = {"client": client, "consortium": period.registered[client][0], "name": period.registered[client][1]}
        own = statement(
            period.document,
            period.settlement,
            period.moves,
            client,
            period.counted.reversals,
            {name: other.settlement.terms.currency for name, other in self._periods.items()},
            is_explained=self._is_explained(period, document),
        )
        receipts = {"receipts": period.counted.receipts[client]}
        _require_same(sequence, "document", document, {**whose, **own, **receipts})
        period.told.add(client)

    def _is_explained(self, period: _Period, document: Document) -> bool:
        """Whether a statement must explain itself: under the second rule, from the first on that does."""
        if period.settlement.rule != FIRST_RULE and document.get("schema") == "protoken.statement/4":
            self._has_explained = True
        return self._has_explained and period.settlement.rule != FIRST_RULE

    def _held_targets(self, kind: str) -> list[str]:
        return [hold["target"] for hold in self._holds.values() if hold["kind"] == kind]


def _earnings(counted: Count, told: set[str]) -> Earnings:
    return Earnings(
        tokens=counted.tokens,
        credit=counted.credit,
        late={account: amount for account, amount in counted.late.items() if amount},
        held={account: amount for account, amount in counted.held.items() if amount},
        mentioned=frozenset(told),
        samples=counted.samples,
    )


def _clawbacks(counted: Count, earlier: dict[str, _Period]) -> dict[str, dict[str, int]]:
    """Earlier period -> client -> minor units: the period settled again without all that was reversed of it so far."""
    amounts: dict[str, dict[str, int]] = {}
    for name, period in earlier.items():
        if name not in counted.reversed:
            continue
        tokens, credit = period.counted.tokens.copy(), period.counted.credit.copy()
        samples = period.counted.samples
        for each in (*(other.counted for other in earlier.values()), counted):
            tokens.subtract(each.reversed_tokens.get(name, {}))
            credit.subtract(each.reversed_credit.get(name, {}))
            samples = take_off(samples, each.reversed_samples.get(name, {}))
        without = Earnings(tokens, credit, samples=samples)
        had, would = period.settlement.gains(), gains_without(period.settlement, without)
        before = _earlier_clawbacks(name, earlier)
        taken = {client: had[client] - would.get(client, 0) - before[client] for client in had if client != COMMONS}
        amounts[name] = {client: amount for client, amount in taken.items() if amount > 0}
    return {name: taken for name, taken in amounts.items() if taken}


def _by_currency(taken: Mapping[str, dict[str, int]], earlier: dict[str, _Period]) -> dict[Currency, dict[str, int]]:
    sums: dict[Currency, Counter[str]] = {}
    for name, amounts in taken.items():
        sums.setdefault(earlier[name].settlement.terms.currency, Counter()).update(amounts)
    return {currency: dict(amounts) for currency, amounts in sums.items()}


def _earlier_clawbacks(name: str, earlier: dict[str, _Period]) -> Counter[str]:
    """Client -> minor units that were taken back of a period, by whichever rule."""
    amounts: Counter[str] = Counter()
    before: dict[str, _Period] = {}
    for other, period in earlier.items():
        if period.settlement.rule == FIRST_RULE and name in before:
            amounts.update(_first_rule(period.counted, before, only=name))
        else:
            amounts.update(period.document.get("clawbacks", {}).get(name, {}))
        before[other] = period
    return amounts


def _first_rule(counted: Count, earlier: Mapping[str, _Period], only: str | None = None) -> dict[str, int]:
    """Client -> minor units: what all reversals so far take back from its line of a period, less what was taken."""
    amounts: Counter[str] = Counter()
    for name, credit in reversed_credit(counted).items():
        if only not in (None, name):
            continue
        lines = earlier[name].settlement.lines
        for client, amount in credit.items():
            taken = sum(period.document["reversed"].get(name, {}).get(client, 0) for period in earlier.values())
            so_far = clawback_by_first_rule(lines[client], taken)
            amounts[client] += clawback_by_first_rule(lines[client], taken + amount) - so_far
    return {client: amount for client, amount in amounts.items() if amount}


def _require_same(sequence: int, field: str, actual: Any, expected: Any) -> None:
    difference = first_difference(field, actual, expected)
    if difference is not None:
        where, is_there, must_be = difference
        raise DifferenceError("events", sequence, where, actual=is_there, expected=must_be)
