"""Whether each response was measured or left out as it had to be, by what the events commit to and reveal.

Same words as `rewards.sampled_credit`, no code in common. A receipt names the rule that was in force when the response
was asked for: a fraction and a key's hash, or none where everything was measured. Once the key is revealed, its choice
is made again. Knows no settlement.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from fractions import Fraction
from hashlib import sha256
from typing import Any

from sqlalchemy import select
from sqlmodel import col

from rewards.audit.hashing import Document
from rewards.audit.report import DifferenceError, canonical_object
from rewards.audit.source import Source
from rewards.store.tables import EventRow, SamplingRuleRow

PENDING = "pending"
COMMITTED = "sampling.committed"
_HOUR_US = 3_600_000_000
"""How far clocks may be apart, and what a replica knows of the rules behind them."""

Rule = tuple[str, str] | None
"""A fraction and the hash of a key; None measures everything."""


class Choices:
    """What decides which responses are measured, by events that are checked elsewhere."""

    def __init__(self, source: Source) -> None:
        self._rules: dict[str, list[tuple[int, Rule]]] = {}  # consortium -> since when, in the order of events
        self._keys: dict[str, bytes] = {}  # by their hash
        self._ended_us: dict[str, int] = {}  # hash of a key -> when it was revealed
        kinds = col(EventRow.kind).in_((COMMITTED, "period.draft"))
        for event in source.rows(select(EventRow).where(kinds).order_by(col(EventRow.sequence))):
            document = canonical_object("events", event["sequence"], "document", event["document"])
            if event["kind"] == COMMITTED:
                hashed = document.get("key_sha256")
                rule = None if hashed is None else (str(document.get("fraction")), str(hashed))
                self._rules.setdefault(event["subject"], []).append((event["at_us"], rule))
            else:
                self._reveal(event, document.get("sampling_keys", []))

    def check(self, receipt: Mapping[str, Any], measurement: Mapping[str, Any], amounts: Mapping[str, int]) -> None:
        """Hold a response's receipt against the rules.

        Raises:
            DifferenceError: it names no rule that was in force, or was measured or not against it.
        """
        sequence, told = receipt["sequence"], measurement.get("sampling")
        named, is_measured = self._name_rule(sequence, told)
        in_force = self._in_force(receipt)
        if named not in in_force:
            expected = " or ".join(
                "nothing" if rule is None else f"fraction {rule[0]} by {rule[1]}" for rule in in_force
            )
            raise DifferenceError("receipts", sequence, "measurement.sampling", actual=told, expected=expected)
        if named is not None and named[1] in self._keys:
            must = _is_measured(receipt["response_id"], self._keys[named[1]], Fraction(named[0]))
            if is_measured != must:
                what = "measurement.sampling.measured"
                raise DifferenceError("receipts", sequence, what, actual=is_measured, expected=must)
        if is_measured == (PENDING in amounts) or (not is_measured and len(amounts) > 1):
            expected = "no entry, as it was measured" if is_measured else "the one entry, as it was not measured"
            actual = amounts.get(PENDING)
            raise DifferenceError("entries", (sequence, PENDING), "amount", actual=actual, expected=expected)

    def _reveal(self, event: Mapping[str, Any], keys: Any) -> None:
        for each in keys if isinstance(keys, list) else []:
            try:
                key = bytes.fromhex(each["key"])
            except (KeyError, TypeError, ValueError) as error:
                expected = "keys that were committed to"
                raise DifferenceError(
                    "events", event["sequence"], "document.sampling_keys", actual=repr(error), expected=expected
                ) from error
            hashed = sha256(key).hexdigest()
            self._keys[hashed] = key
            self._ended_us[hashed] = event["at_us"]

    def _in_force(self, receipt: Mapping[str, Any]) -> list[Rule]:
        """The rules that may have been the last ones when the response was asked for."""
        created_us, booked_us = receipt["created_at_us"], receipt["booked_at_us"]
        made_us = created_us if created_us <= booked_us + _HOUR_US else booked_us
        first_us, last_us = made_us - _HOUR_US, made_us + _HOUR_US
        rules = self._rules.get(receipt["consortium"], [])
        between = sorted(at_us for at_us, _ in rules if first_us < at_us <= last_us)
        last: list[Rule] = []
        for moment_us in (first_us, *between):
            before = [rule for at_us, rule in rules if at_us <= moment_us]
            rule = before[-1] if before else None
            # A key that everybody knows chooses nothing any more, also where none took its place.
            is_over = rule is not None and self._ended_us.get(rule[1], first_us) < first_us
            last.append(None if is_over else rule)
        return last

    def _name_rule(self, sequence: int, told: Any) -> tuple[Rule, bool]:
        """The rule that a receipt names, and whether it says that the response was measured."""
        if told is None:
            return None, True
        if isinstance(told, dict) and set(told) == {"fraction", "key_sha256", "measured"}:
            rule, is_measured = (told["fraction"], told["key_sha256"]), told["measured"]
            if type(is_measured) is bool:
                return rule, is_measured
        expected = "fraction, key_sha256 and measured"
        raise DifferenceError("receipts", sequence, "measurement.sampling", actual=told, expected=expected)


class Commitments:
    """The keys that the events so far have committed to, and that no close has revealed yet."""

    def __init__(self) -> None:
        self._committed: list[Document] = []

    def add(self, event: Mapping[str, Any], document: Document) -> None:
        """Note what an event commits to; where everything is measured there is no key."""
        if document["key_sha256"] is not None:
            key = {"event": event["sequence"], "consortium": event["subject"], "key_sha256": document["key_sha256"]}
            self._committed.append(key)

    def reveal(self, draft: Document) -> list[Document]:
        """What a draft must reveal: every one of the keys, and no others."""
        keys = [each["key"] for each in draft.get("sampling_keys", [])]
        keys += [None] * (len(self._committed) - len(keys))
        revealed = []
        for committed, key in zip(self._committed, keys, strict=False):
            is_key = isinstance(key, str) and sha256(bytes.fromhex(key)).hexdigest() == committed["key_sha256"]
            revealed.append({**committed, "key": key if is_key else "the key that was committed to"})
        return revealed


def check_rules(source: Source) -> None:
    """Hold each stored rule against the event that committed to it, secrets by their hashes.

    Where the rules cannot be read, as by an auditor's login on PostgreSQL, their keys are checked once they are
    revealed, and this says nothing.

    Raises:
        DifferenceError: a rule differs from its event, has none, or is missing.
    """
    if not source.can_read(SamplingRuleRow):
        return
    committed = select(EventRow).where(col(EventRow.kind) == COMMITTED)
    events = {event["sequence"]: event for event in source.all(committed)}
    for rule in source.rows(select(SamplingRuleRow).order_by(col(SamplingRuleRow.sequence))):
        sequence = rule["sequence"]
        if sequence not in events:
            raise DifferenceError("sampling_rules", sequence, "sequence", actual=sequence, expected=None)
        event = events.pop(sequence)
        document = canonical_object("events", sequence, "document", event["document"])
        expected = {
            "consortium": event["subject"],
            "millionths": Fraction(str(document.get("fraction"))) * 10**6,
            "secret (its SHA-256)": document.get("key_sha256"),
            "at_us": event["at_us"],
        }
        actual = {**rule, "secret (its SHA-256)": _secret_sha256(rule["secret"])}
        for name, value in expected.items():
            if actual[name] != value:
                raise DifferenceError("sampling_rules", sequence, name, actual=actual[name], expected=value)
    for sequence in events:
        raise DifferenceError("sampling_rules", sequence, "sequence", actual=None, expected=sequence)


def _secret_sha256(secret: str | None) -> str | None:
    """The hash of a stored secret, which is not shown itself."""
    if secret is None:
        return None
    try:
        return sha256(bytes.fromhex(secret)).hexdigest()
    except ValueError:
        return "no key"


def _is_measured(response_id: str, key: bytes, fraction: Fraction) -> bool:
    """Whether the hash of a response, as a part of all hashes, is below the fraction."""
    digest = hmac.new(key, response_id.encode(), sha256).hexdigest()
    return Fraction(int(digest, 16), 2**256) < fraction
