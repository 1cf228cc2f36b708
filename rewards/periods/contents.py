"""What a period comes to: the credit of its receipts, less what is held, and what reversals take back from before.

Each response counts in exactly one period, or in none while it is held. Its reversal nets it out if it is of the same
period, and is a claw-back in money if it is of a later one. Knows the rules of counting; knows no policy and no payout.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import aliased
from sqlmodel import col

from rewards import reading
from rewards.credit import COMMONS, MICRO_CREDITS_PER_TOKEN
from rewards.errors import LedgerError
from rewards.periods import tally
from rewards.settlement import PeriodCredit, clawback
from rewards.tables import ReceiptRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection

    from rewards.periods.book import Period
    from rewards.periods.window import Frame


@dataclass(frozen=True)
class Contents:
    """What a frame comes to with the holds of one moment.

    Attributes:
        credit: for `settle`.
        receipts: account -> receipts that credit it in this period.
        left_out, taken_in, reversed: as in `Period`.
    """

    credit: PeriodCredit
    receipts: Mapping[str, int]
    left_out: tuple[int, ...]
    taken_in: tuple[int, ...]
    reversed: Mapping[str, Mapping[str, int]]


@dataclass
class _Selection:
    """The receipts of a frame that are not simply counted, by sequence number."""

    reversals: dict[int, int] = field(default_factory=dict)  # of the frame: reversal -> what it reverses
    left_out: set[int] = field(default_factory=set)
    still_out: set[int] = field(default_factory=set)  # held since an earlier period
    taken_in: set[int] = field(default_factory=set)
    taken_back: dict[int, str] = field(default_factory=dict)  # reversal -> the earlier period that it takes from


def contents(
    connection: Connection, frame: Frame, earlier: tuple[Period, ...], held: Iterable[str], *, by_application: bool
) -> Contents:
    """Add up a frame.

    Args:
        connection: a transaction of the ledger.
        frame: which receipts.
        earlier: every period before, all of them final or paid.
        held: response ids under an active hold.
        by_application: tell applications apart.

    Raises:
        LedgerError: entries do not sum to tokens; somebody wrote past the ledger.
    """
    selection = _select(connection, frame, earlier, held)

    def tallied(sequences: Iterable[int]) -> tally.Tally:
        return tally.receipts(connection, sequences, by_application=by_application)

    counted = _window(connection, frame, by_application=by_application)
    counted.add(tallied(frame.deferred), -1)
    counted.add(tallied(frame.arrived))
    counted.add(tallied(selection.left_out), -1)
    counted.add(tallied(selection.taken_in))
    counted.add(tallied(selection.taken_back), -1)
    _require_sums(counted.tokens.total(), counted.credit.total(), frame)
    taken_back = _taken_back(connection, selection)
    return Contents(
        credit=PeriodCredit(
            window=(frame.after, frame.up_to),
            tokens=counted.tokens.total(),
            credit={**dict.fromkeys(reading.accounts(connection), 0), **counted.accounts()},
            by_application=counted.by_application() if by_application else None,
            tokens_by_application=dict(counted.tokens) if by_application else None,
            late=_nonzero(tallied(_late(connection, frame, selection)).accounts()),
            held=_nonzero(tallied(selection.left_out | selection.still_out).accounts()),
            clawbacks=_clawbacks(earlier, taken_back),
        ),
        receipts={account: count for account, count in counted.receipts.items() if count},
        left_out=tuple(sorted(selection.left_out)),
        taken_in=tuple(sorted(selection.taken_in)),
        reversed=taken_back,
    )


def counted_in(sequence: int, periods: Iterable[Period]) -> Period | None:
    """The period in which a receipt counts; None while it counts in none."""
    arrived: tuple[int, ...] = ()
    found = None
    for period in periods:
        is_own = period.window[0] < sequence <= period.window[1] and sequence not in period.deferred
        if sequence in period.taken_in or ((is_own or sequence in arrived) and sequence not in period.left_out):
            found = period
        arrived = period.deferred
    return found


def _select(connection: Connection, frame: Frame, earlier: tuple[Period, ...], held: Iterable[str]) -> _Selection:
    deferred, arrived = frozenset(frame.deferred), frozenset(frame.arrived)

    def is_framed(sequence: int) -> bool:
        return (frame.after < sequence <= frame.up_to and sequence not in deferred) or sequence in arrived

    found = _Selection(reversals=_reversals(connection, frame))
    reversed_here = frozenset(found.reversals.values())
    held_now = _sequences(connection, held)
    found.left_out = {each for each in held_now if is_framed(each) and each not in reversed_here}
    out_before = {each for period in earlier for each in period.left_out} - {
        each for period in earlier for each in period.taken_in
    }
    found.still_out = {each for each in out_before if each in held_now and each not in reversed_here}
    found.taken_in = out_before - found.still_out
    for reversal, original in found.reversals.items():
        if not is_framed(original) and original not in found.taken_in:
            period = counted_in(original, earlier)
            if period is None:
                raise LedgerError(f"receipt {reversal} reverses receipt {original}, which counts in no period")
            found.taken_back[reversal] = period.name
    return found


def _reversals(connection: Connection, frame: Frame) -> dict[int, int]:
    """Each reversal of the frame, and the response that it reverses."""
    reversal, original = aliased(ReceiptRow), aliased(ReceiptRow)
    sequence = col(reversal.sequence)
    pairs = select(sequence, col(original.sequence)).join_from(
        reversal, original, col(reversal.reverses) == col(original.response_id)
    )
    rows = list(connection.execute(pairs.where(sequence > frame.after, sequence <= frame.up_to)))
    for some in tally.batches(frame.arrived):
        rows += connection.execute(pairs.where(sequence.in_(some)))
    deferred = frozenset(frame.deferred)
    return {reversal_at: original_at for reversal_at, original_at in sorted(rows) if reversal_at not in deferred}


def _sequences(connection: Connection, response_ids: Iterable[str]) -> frozenset[int]:
    found: set[int] = set()
    for some in tally.batches(sorted(response_ids)):
        query = select(col(ReceiptRow.sequence)).where(col(ReceiptRow.response_id).in_(some))
        found.update(connection.execute(query).scalars())
    return frozenset(found)


def _late(connection: Connection, frame: Frame, selection: _Selection) -> set[int]:
    """What counts here though it was made before the period before had ended, with the reversals that net it out."""
    sequence = col(ReceiptRow.sequence)
    query = select(sequence).where(
        sequence > frame.after,
        sequence <= frame.up_to,
        col(ReceiptRow.created_at_us) < frame.late_us,
        col(ReceiptRow.kind) == "response",
    )
    late = set(connection.execute(query).scalars()) if frame.late_us else set()
    late = (late - selection.left_out) | selection.taken_in
    return late | {reversal for reversal, original in selection.reversals.items() if original in late}


def _taken_back(connection: Connection, selection: _Selection) -> dict[str, dict[str, int]]:
    """Earlier period -> client -> micro-credits that it had from responses that are reversed here."""
    found: dict[str, dict[str, int]] = {}
    for name in dict.fromkeys(selection.taken_back.values()):
        own = [reversal for reversal, period in selection.taken_back.items() if period == name]
        credit = tally.receipts(connection, own, by_application=False).accounts()
        found[name] = {client: -amount for client, amount in sorted(credit.items()) if client != COMMONS and amount}
    return found


def _clawbacks(earlier: tuple[Period, ...], taken_back: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Client -> minor units: what all reversals together take back from its old line, less what earlier ones took."""
    found: Counter[str] = Counter()
    for name, credit in taken_back.items():
        settlement = next(period.settlement for period in earlier if period.name == name)
        lines = {line.account: line for line in settlement.lines}
        for client, amount in credit.items():
            before = sum(period.reversed.get(name, {}).get(client, 0) for period in earlier)
            found[client] += clawback(lines[client], before + amount) - clawback(lines[client], before)
    return {client: amount for client, amount in sorted(found.items()) if amount}


def _window(connection: Connection, frame: Frame, *, by_application: bool) -> tally.Tally:
    found = tally.window(connection, frame.after, frame.up_to, by_application=by_application)
    entries = tally.entries_between(connection, frame.after, frame.up_to)
    _require_sums(found.tokens.total(), entries, frame)
    _require_sums(found.tokens.total(), found.credit.total(), frame)
    return found


def _require_sums(tokens: int, credit: int, frame: Frame) -> None:
    if credit != tokens * MICRO_CREDITS_PER_TOKEN:
        raise LedgerError(
            f"receipts {frame.after + 1} to {frame.up_to}: entries sum to {credit} micro-credits, tokens to "
            f"{tokens * MICRO_CREDITS_PER_TOKEN}; somebody wrote past the ledger, period not settled"
        )


def _nonzero(credit: Mapping[str, int]) -> dict[str, int]:
    return {account: amount for account, amount in sorted(credit.items()) if amount}
