"""Receipts and their entries, replayed in order: each hash, each sum, each reversal and every balance anew.

Knows no log and no event; which accounts may be credited is judged by who has seen all events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlalchemy import select
from sqlmodel import col

from rewards.audit import hashing
from rewards.audit.report import DifferenceError, Stamps, canonical_object
from rewards.audit.sampled_credit import Choices
from rewards.audit.source import Source
from rewards.store.tables import EntryRow, ReceiptRow

MICRO_CREDITS = 1_000_000  # of one token
_KEPT = ("application", "consortium", "model_sha256", "method", "settings", "version")  # by a reversal


class Receipts:
    """A pass over all receipts.

    Attributes:
        balances: account -> micro-credits of the receipts so far.
        tokens: generated tokens so far, less those reversed.
        accounts: (consortium, account) -> the first receipt that credits it.
    """

    def __init__(self, source: Source, accounts_of: Callable[[str], set[str]]) -> None:
        self.balances: dict[str, int] = {}
        self.tokens = 0
        self.accounts: dict[tuple[str, str], int] = {}
        self._source = source
        self._accounts_of = accounts_of
        self._entries = source.rows(select(EntryRow).order_by(col(EntryRow.receipt_sequence)))
        self._next_entry = next(self._entries, None)
        self._stamps = Stamps()

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Sequence and leaf hash of each receipt that is in order.

        Raises:
            DifferenceError: the next one is not.
        """
        choices = Choices(self._source)
        query = select(ReceiptRow).order_by(col(ReceiptRow.sequence))
        for expected, receipt in enumerate(self._source.rows(query), start=1):
            if receipt["sequence"] != expected:
                raise DifferenceError("receipts", expected, "sequence", actual=None, expected=expected)
            amounts = self._amounts(expected)
            self._check(receipt, amounts, choices)
            self._add(receipt, amounts)
            yield expected, hashing.receipt_leaf(receipt, amounts)

    def check_nothing_more(self) -> None:
        """Refuse entries behind the last receipt.

        Raises:
            DifferenceError: there is one.
        """
        if self._next_entry is not None:
            self._refuse_entry(self._next_entry)

    def _amounts(self, sequence: int) -> dict[str, int]:
        """The entries of the receipt that is next."""
        amounts = {}
        while (entry := self._next_entry) is not None and entry["receipt_sequence"] <= sequence:
            if entry["receipt_sequence"] < sequence:
                self._refuse_entry(entry)
            amounts[entry["account"]] = entry["amount"]
            self._next_entry = next(self._entries, None)
        return amounts

    def _refuse_entry(self, entry: Mapping[str, Any]) -> None:
        key = entry["receipt_sequence"], entry["account"]
        raise DifferenceError("entries", key, "receipt_sequence", actual=key[0], expected=None)

    def _check(self, receipt: Mapping[str, Any], amounts: Mapping[str, int], choices: Choices) -> None:
        sequence = receipt["sequence"]
        settings = canonical_object("receipts", sequence, "settings", receipt["settings"])
        measurement = canonical_object("receipts", sequence, "measurement", receipt["measurement"])
        digest = hashing.payload_sha256(receipt, settings, measurement, amounts)
        if digest != receipt["payload_sha256"]:
            self._blame(receipt, settings, measurement, amounts)
            raise DifferenceError(
                "receipts", sequence, "payload_sha256", actual=receipt["payload_sha256"], expected=digest
            )
        if not self._stamps.follows(receipt["booked_at_us"]):
            expected = f"at least {self._stamps.last_us}, when the receipt before it was booked, or long before"
            raise DifferenceError(
                "receipts", sequence, "booked_at_us", actual=receipt["booked_at_us"], expected=expected
            )
        due = receipt["tokens"] * MICRO_CREDITS
        if sum(amounts.values()) != due:
            raise DifferenceError("entries", sequence, "sum of amounts", actual=sum(amounts.values()), expected=due)
        if receipt["kind"] == "reversal":
            self._check_reversal(receipt, amounts)
        elif receipt["kind"] != "response" or receipt["reverses"] is not None:
            raise DifferenceError("receipts", sequence, "kind", actual=receipt["kind"], expected="response")
        else:
            for account, amount in amounts.items():
                if amount < 0:
                    raise DifferenceError("entries", (sequence, account), "amount", actual=amount, expected="0 or more")
            choices.check(receipt, measurement, amounts)

    def _check_reversal(self, receipt: Mapping[str, Any], amounts: Mapping[str, int]) -> None:
        """A reversal takes back exactly what an earlier response was credited."""
        sequence, reverses = receipt["sequence"], receipt["reverses"]
        original = next(iter(self._source.all(select(ReceiptRow).where(col(ReceiptRow.response_id) == reverses))), None)
        if original is None or original["kind"] != "response" or original["sequence"] >= sequence:
            raise DifferenceError("receipts", sequence, "reverses", actual=reverses, expected="an earlier response")
        expected = {name: original[name] for name in _KEPT}
        expected |= {"tokens": -original["tokens"], "response_id": f"reversal-{reverses}", "duration_us": 0}
        for name, value in expected.items():
            if receipt[name] != value:
                raise DifferenceError("receipts", sequence, name, actual=receipt[name], expected=value)
        of_original = col(EntryRow.receipt_sequence) == original["sequence"]
        credited = self._source.all(select(EntryRow).where(of_original))
        negated = {entry["account"]: -entry["amount"] for entry in credited}
        for account in sorted({*amounts, *negated}):
            if amounts.get(account) != negated.get(account):
                taken, due = amounts.get(account), negated.get(account)
                raise DifferenceError("entries", (sequence, account), "amount", actual=taken, expected=due)

    def _add(self, receipt: Mapping[str, Any], amounts: Mapping[str, int]) -> None:
        self.tokens += receipt["tokens"]
        for account, amount in amounts.items():
            self.balances[account] = self.balances.get(account, 0) + amount
            self.accounts.setdefault((receipt["consortium"], account), receipt["sequence"])

    def _blame(self, receipt: Mapping[str, Any], settings: Any, measurement: Any, amounts: Mapping[str, int]) -> None:
        """Name the entry whose change, or exchange with another, alone explains the payload's hash, if there is one."""
        sequence = receipt["sequence"]
        missing = receipt["tokens"] * MICRO_CREDITS - sum(amounts.values())
        absent = self._accounts_of(receipt["consortium"]) - amounts.keys()
        for account, field, actual, expected, corrected in _corrections(amounts, missing, absent):
            if hashing.payload_sha256(receipt, settings, measurement, corrected) == receipt["payload_sha256"]:
                raise DifferenceError("entries", (sequence, account), field, actual=actual, expected=expected)


def _corrections(
    amounts: Mapping[str, int], missing: int, absent: set[str]
) -> Iterator[tuple[str, str, Any, Any, dict[str, int]]]:
    """Each small change of entries that could make a receipt whole: account, field, found, expected, all amounts."""
    for account, amount in amounts.items():
        others = {name: value for name, value in amounts.items() if name != account}
        yield account, "amount", amount, amount + missing, {**others, account: amount + missing}
        yield account, "account", account, None, others
        for name in sorted(absent):
            yield account, "account", account, name, {**others, name: amount}
        for name in amounts.keys() - {account}:
            exchanged = {account: amounts[name], name: amount}
            yield account, "amount", amount, amounts[name], {**amounts, **exchanged}
    for name in sorted(absent):
        yield name, "amount", None, missing, {**amounts, name: missing}
