"""What a period comes to, counted a second time: one pass over its receipts, one decision for each.

Same rules as in the words of `rewards.periods`, no code in common. A receipt of the period's frame counts in it, unless
it is held, or takes back what an earlier period had. Knows no policy and no payout.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlmodel import col

from rewards.audit.hashing import Document
from rewards.audit.settlement.pending import Sample, Samples
from rewards.audit.source import Source, StoredRow
from rewards.store.tables import EntryRow, ReceiptRow

COMMONS = "commons"
_LOOKED_AT = (
    "sequence", "kind", "response_id", "reverses", "created_at_us", "booked_at_us", "application", "tokens",
    "consortium", "model_sha256", "measurement",
)  # fmt: skip


@dataclass(frozen=True)
class CountFrame:
    """Which receipts a period is about, and what came before it.

    Attributes:
        after, up_to: receipts with after < sequence ≤ up_to are in the window.
        until_us: what was made at or after this moment counts in the next period.
        late_us: what was made before this moment is late; 0 in the first period.
        arrived: receipts that the period before left to this one.
        latest_us: a stamp after this moment is of a clock that was wrong; None of a period of the first rule, which
            believed every stamp.
        skew_us: by how much a receipt may say that it was made after it was booked.
        earlier: the documents of all periods before, by name, in their order.
    """

    after: int
    up_to: int
    until_us: int
    late_us: int
    arrived: frozenset[int]
    latest_us: int | None
    skew_us: int
    earlier: dict[str, Document]

    @classmethod
    def of(cls, document: Document, earlier: dict[str, Document], skew_us: int) -> CountFrame:
        """The frame of a period: its window begins where the one before ended; where it ends, the period says."""
        last = list(earlier.values())[-1] if earlier else None
        latest_us = document["as_of_us"] + skew_us if "as_of_us" in document else None
        late_us = 0 if last is None else last["until_us"]
        return cls(
            after=0 if last is None else last["window"]["up_to"],
            up_to=document["window"]["up_to"],
            until_us=document["until_us"],
            late_us=0 if latest_us is not None and late_us > latest_us else late_us,
            arrived=frozenset(() if last is None else last["deferred"]),
            latest_us=latest_us,
            skew_us=skew_us,
            earlier=earlier,
        )


@dataclass
class Count:
    """What a frame comes to.

    Attributes:
        tokens: application -> generated tokens.
        credit: (application, account) -> micro-credits.
        receipts: account -> receipts that credit it, less those that were reversed.
        late, held: account -> micro-credits, as in `rewards.settlement.allocation.PeriodCredit`.
        deferred, left_out, taken_in: sequence numbers, as in the document of a period.
        reversed: earlier period -> client -> micro-credits that are taken back from it.
        reversed_tokens, reversed_credit: earlier period -> as `tokens` and `credit`, of what is taken back from it.
        samples, reversed_samples: likewise, of the responses that were sampled.
        reversals: of each reversal that counts: its number, the response that it reverses, the earlier period that had
            counted that, or nothing where it counts here, and account -> micro-credits that are taken back.
    """

    tokens: Counter[str] = field(default_factory=Counter)
    credit: Counter[tuple[str, str]] = field(default_factory=Counter)
    receipts: Counter[str] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)
    deferred: list[int] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)
    taken_in: list[int] = field(default_factory=list)
    reversed: dict[str, Counter[str]] = field(default_factory=dict)
    reversed_tokens: dict[str, Counter[str]] = field(default_factory=dict)
    reversed_credit: dict[str, Counter[tuple[str, str]]] = field(default_factory=dict)
    samples: Samples = field(default_factory=dict)
    reversed_samples: dict[str, Samples] = field(default_factory=dict)
    reversals: list[tuple[int, str, str, dict[str, int]]] = field(default_factory=list)

    def accounts(self) -> dict[str, int]:
        """Account -> micro-credits."""
        totals: Counter[str] = Counter()
        for (_, account), amount in self.credit.items():
            totals[account] += amount
        return dict(totals)


def count(source: Source, frame: CountFrame, held: Sequence[str]) -> Count:
    """Count a frame.

    Args:
        source: the ledger.
        frame: which receipts.
        held: responses that were under a hold when it was settled.
    """
    return _CountRun(source, frame, held).run()


class _CountRun:
    def __init__(self, source: Source, frame: CountFrame, held: Sequence[str]) -> None:
        self._source = source
        self._frame = frame
        self._counts = Count()
        out = {each for period in frame.earlier.values() for each in period["left_out"]}
        out -= {each for period in frame.earlier.values() for each in period["taken_in"]}
        held_now = {row["sequence"] for each in held for row in self._receipts(response_id=each)}
        reversed_here = {each for each in held_now | out if self._is_reversed_here(each)}
        self._left_out = {each for each in held_now - reversed_here if self._is_framed(each)}
        self._still_out = (out & held_now) - reversed_here
        self._taken_in = out - self._still_out

    def run(self) -> Count:
        counts, frame = self._counts, self._frame
        for receipt, amounts in self._window():
            if self._is_deferred(receipt):
                counts.deferred.append(receipt["sequence"])
            else:
                self._judge(receipt, amounts)
        for sequence in sorted(frame.arrived):
            for receipt in self._receipts(sequence=sequence):
                if self._is_deferred(receipt):
                    counts.deferred.append(sequence)
                else:
                    self._judge(receipt, self._amounts(sequence))
        for sequence in sorted(self._taken_in):
            for receipt in self._receipts(sequence=sequence):
                self._add(receipt, receipt, self._amounts(sequence))
                counts.late.update(self._amounts(sequence))
        for sequence in self._left_out | self._still_out:
            counts.held.update(self._amounts(sequence))
        counts.deferred.sort()
        counts.reversals.sort(key=lambda reversal: reversal[0])
        counts.left_out, counts.taken_in = sorted(self._left_out), sorted(self._taken_in)
        return counts

    def _judge(self, receipt: StoredRow, amounts: dict[str, int]) -> None:
        """Count a receipt of the frame, or say why not."""
        sequence = receipt["sequence"]
        if receipt["kind"] == "response":
            if sequence in self._left_out:
                return
            original, is_late = receipt, self._is_late(receipt)
        else:
            (original,) = self._receipts(response_id=receipt["reverses"])
            if not self._is_framed(original["sequence"]) and original["sequence"] not in self._taken_in:
                name = period_of_receipt(original["sequence"], self._frame.earlier)
                self._take_back(name, receipt, original, amounts)
                self._note_reversal(receipt, name, amounts)
                return
            is_late = original["sequence"] in self._taken_in or self._is_late(original)
            self._note_reversal(receipt, "", amounts)
        self._add(receipt, original, amounts)
        if is_late:
            self._counts.late.update(amounts)

    def _note_reversal(self, reversal: StoredRow, name: str, amounts: dict[str, int]) -> None:
        taken = {account: -amount for account, amount in amounts.items() if amount}
        self._counts.reversals.append((reversal["sequence"], reversal["reverses"], name, taken))

    def _take_back(self, name: str, reversal: StoredRow, original: StoredRow, amounts: dict[str, int]) -> None:
        counts, application = self._counts, reversal["application"]
        counts.reversed.setdefault(name, Counter()).update({account: -amount for account, amount in amounts.items()})
        counts.reversed_tokens.setdefault(name, Counter())[application] -= reversal["tokens"]
        credit = counts.reversed_credit.setdefault(name, Counter())
        credit.update({(application, account): -amount for account, amount in amounts.items()})
        taken = {account: -amount for account, amount in amounts.items()}
        _add_sample(counts.reversed_samples.setdefault(name, {}), original, taken, 1)

    def _add(self, receipt: StoredRow, original: StoredRow, amounts: dict[str, int]) -> None:
        """Count a receipt; the original of a reversal is what it reverses, and that of a response itself."""
        sign = 1 if receipt["kind"] == "response" else -1
        credited = {account: sign * amount for account, amount in amounts.items()}
        _add_sample(self._counts.samples, original, credited, sign)
        application = receipt["application"]
        self._counts.tokens[application] += receipt["tokens"]
        for account, amount in amounts.items():
            self._counts.credit[application, account] += amount
            self._counts.receipts[account] += (amount > 0) - (amount < 0)

    def _is_late(self, response: StoredRow) -> bool:
        return self._is_in_window(response["sequence"]) and response["created_at_us"] < self._frame.late_us

    def _is_in_window(self, sequence: int) -> bool:
        return self._frame.after < sequence <= self._frame.up_to

    def _is_candidate(self, sequence: int) -> bool:
        return sequence in self._frame.arrived or self._is_in_window(sequence)

    def _is_framed(self, sequence: int) -> bool:
        return self._is_candidate(sequence) and not any(map(self._is_deferred, self._receipts(sequence=sequence)))

    def _is_deferred(self, receipt: StoredRow) -> bool:
        """Whether a candidate was made after the period's end, or reverses one that was."""
        if self._frame.latest_us is None and receipt["sequence"] in self._frame.arrived:
            return False  # the first rule deferred once only
        if self._is_made_after(receipt):
            return True
        originals = self._receipts(response_id=receipt["reverses"]) if receipt["kind"] == "reversal" else []
        is_second = self._frame.latest_us is not None
        return any(
            (self._is_in_window(original["sequence"]) or (is_second and original["sequence"] in self._frame.arrived))
            and self._is_made_after(original)
            for original in originals
        )

    def _is_made_after(self, receipt: StoredRow) -> bool:
        """Whether it was made at the end of the period or later; by the first rule, whether it says so."""
        created_us, booked_us, latest_us = receipt["created_at_us"], receipt["booked_at_us"], self._frame.latest_us
        if latest_us is None:
            return bool(created_us >= self._frame.until_us)
        if created_us > latest_us or created_us > booked_us + self._frame.skew_us:
            return bool(self._frame.until_us <= booked_us <= latest_us)
        return bool(created_us >= self._frame.until_us)

    def _is_reversed_here(self, sequence: int) -> bool:
        """Whether a reversal of the frame reverses this response."""
        (response,) = self._receipts(sequence=sequence)
        return any(self._is_framed(each["sequence"]) for each in self._receipts(reverses=response["response_id"]))

    def _receipts(self, **where: Any) -> list[StoredRow]:
        """The receipt of which one column has a value, in a list, or none."""
        conditions = [col(getattr(ReceiptRow, name)) == value for name, value in where.items()]
        return self._source.all(_receipts().where(*conditions))

    def _amounts(self, sequence: int) -> dict[str, int]:
        entries = self._source.all(select(EntryRow).where(col(EntryRow.receipt_sequence) == sequence))
        return {entry["account"]: entry["amount"] for entry in entries}

    def _window(self) -> Iterator[tuple[StoredRow, dict[str, int]]]:
        """Each receipt of the window with its amounts."""
        sequence, of = col(ReceiptRow.sequence), col(EntryRow.receipt_sequence)
        window = sequence > self._frame.after, sequence <= self._frame.up_to
        of_window = of > self._frame.after, of <= self._frame.up_to
        entries = self._source.rows(select(EntryRow).where(*of_window).order_by(of))
        entry = next(entries, None)
        for receipt in self._source.rows(_receipts().where(*window).order_by(sequence)):
            amounts = {}
            while entry is not None and entry["receipt_sequence"] == receipt["sequence"]:
                amounts[entry["account"]] = entry["amount"]
                entry = next(entries, None)
            yield receipt, amounts


def period_of_receipt(sequence: int, periods: dict[str, Document]) -> str:
    """The name of the last of these periods in which a receipt counts; empty when it counts in none."""
    last, arrived = "", frozenset[int]()
    for name, period in periods.items():
        is_in_window = period["window"]["after"] < sequence <= period["window"]["up_to"]
        is_framed = (sequence in arrived or is_in_window) and sequence not in period["deferred"]
        if sequence in period["taken_in"] or (is_framed and sequence not in period["left_out"]):
            last = name
        arrived = frozenset(period["deferred"])
    return last


def _add_sample(samples: Samples, response: StoredRow, credited: dict[str, int], sign: int) -> None:
    """Add a response that was sampled to its stratum, or take it off; one that says no fraction is in none."""
    if '"sampling"' in response["measurement"]:
        sampling = json.loads(response["measurement"]).get("sampling")
        if sampling is not None:
            key = (response["consortium"], response["model_sha256"], sampling["fraction"], response["application"])
            samples.setdefault(key, Sample()).add(credited, sign)


def _receipts() -> Any:
    return select(*(col(getattr(ReceiptRow, name)) for name in _LOOKED_AT))
