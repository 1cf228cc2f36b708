"""What a period comes to: the credit of its receipts, less what is held, and what reversals take back from before.

Each response counts in exactly one period, or in none while it is held. Its reversal nets it out if it is of the same
period, and is a claw-back in money if it is of a later one. Knows the rules of counting; knows no policy and no payout.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, select
from sqlmodel import col

from rewards.credit import COMMONS, MICRO_CREDITS_PER_TOKEN, PENDING
from rewards.errors import LedgerError
from rewards.periods import receipt_totals, sampled_totals
from rewards.periods.history import Period
from rewards.periods.period_end import PeriodFrame, refreeze
from rewards.settlement.allocation import PeriodCredit
from rewards.store import queries
from rewards.store.receipts import read_receipts, reversals_booked
from rewards.store.tables import ReceiptRow


@dataclass(frozen=True)
class PeriodContents:
    """What a frame comes to with the holds of one moment.

    Attributes:
        credit: for `settle`.
        receipts: account -> receipts that credit it in this period.
        left_out, taken_in, reversed: as in `Period`.
        reversals: client -> the responses with credit of its own whose reversals count here, in their order.
        is_empty: whether no receipt counts here and no reversal takes anything back.
    """

    credit: PeriodCredit
    receipts: Mapping[str, int]
    left_out: tuple[int, ...]
    taken_in: tuple[int, ...]
    reversed: Mapping[str, Mapping[str, int]]
    reversals: Mapping[str, tuple[ReversedResponse, ...]]
    is_empty: bool


@dataclass(frozen=True)
class ReversedResponse:
    """A response whose credit was taken back, as one client is told of it.

    Attributes:
        response_id: of the response.
        period: in which it had counted; the one that tells of it where it was reversed before that was closed.
        credit: micro-credits that the client had of it.
    """

    response_id: str
    period: str
    credit: int


@dataclass
class _ReceiptSets:
    """The receipts of a frame that are not simply counted, by sequence number."""

    reversals: dict[int, int] = field(default_factory=dict)  # of the frame: reversal -> what it reverses
    left_out: set[int] = field(default_factory=set)
    still_out: set[int] = field(default_factory=set)  # held since an earlier period
    taken_in: set[int] = field(default_factory=set)
    taken_back: dict[int, str] = field(default_factory=dict)  # reversal -> the earlier period that it takes from


def contents(
    connection: Connection,
    name: str,
    frame: PeriodFrame,
    earlier: tuple[Period, ...],
    held: Iterable[str],
    *,
    by_application: bool,
) -> PeriodContents:
    """Add up a frame; what reversals take back of earlier periods is told in credit, and not in money.

    Args:
        connection: a transaction of the ledger.
        name: of the period.
        frame: which receipts.
        earlier: every period before, all of them final or paid.
        held: response ids under an active hold.
        by_application: tell applications apart.

    Raises:
        LedgerError: entries do not sum to tokens; somebody wrote past the ledger.
    """
    selection = _select(connection, frame, earlier, held)
    counted = _count(connection, frame, selection, by_application=by_application)
    late = _credit_of(connection, _late_receipts(connection, frame, selection))
    held_back = _credit_of(connection, selection.left_out | selection.still_out)
    late_pending, held_pending = late.pop(PENDING, 0), held_back.pop(PENDING, 0)
    return PeriodContents(
        credit=PeriodCredit(
            window=(frame.after, frame.up_to),
            tokens=counted.tokens.total(),
            credit={**dict.fromkeys(_settled_accounts(connection), 0), **counted.accounts()},
            by_application=counted.by_application() if by_application else None,
            tokens_by_application=dict(counted.tokens) if by_application else None,
            late=late,
            held=held_back,
            strata=counted.strata,
            late_pending=late_pending,
            held_pending=held_pending,
        ),
        receipts={account: count for account, count in counted.receipts.items() if count},
        left_out=tuple(sorted(selection.left_out)),
        taken_in=tuple(sorted(selection.taken_in)),
        reversed=_reversed_credit(connection, selection),
        reversals=_responses_taken_back(connection, name, selection),
        is_empty=_is_empty(frame, selection),
    )


def count_again(
    connection: Connection, period: Period, earlier: tuple[Period, ...], *, by_application: bool
) -> receipt_totals.Tally:
    """What a closed period was settled over, added up again."""
    frame = refreeze(period, earlier[-1] if earlier else None)
    selection = _ReceiptSets(
        reversals=_reversals(connection, frame), left_out={*period.left_out}, taken_in={*period.taken_in}
    )
    _find_taken_back(selection, frame, earlier)
    return _count(connection, frame, selection, by_application=by_application)


def reversed_responses(
    connection: Connection, period: Period, earlier: tuple[Period, ...]
) -> Mapping[str, tuple[ReversedResponse, ...]]:
    """Client -> the responses with credit of its own whose reversals count in a closed period, in their order."""
    frame = refreeze(period, earlier[-1] if earlier else None)
    sets = _ReceiptSets(reversals=_reversals(connection, frame), taken_in={*period.taken_in})
    _find_taken_back(sets, frame, earlier)
    return _responses_taken_back(connection, period.name, sets)


def _count(
    connection: Connection, frame: PeriodFrame, selection: _ReceiptSets, *, by_application: bool
) -> receipt_totals.Tally:
    """What the receipts that count in a frame come to."""
    total = _window(connection, frame, by_application=by_application)
    is_sampled = sampled_totals.has_pending(connection, frame.after, frame.up_to, frame.arrivals | selection.taken_in)
    if is_sampled:
        total.strata = sampled_totals.window(connection, frame.after, frame.up_to, by_application=by_application)
    for sign, sequences in (
        (-1, frame.departures),
        (1, frame.arrivals),
        (-1, selection.left_out),
        (1, selection.taken_in),
        (-1, selection.taken_back),
    ):
        part = receipt_totals.receipts(connection, sequences, by_application=by_application)
        if is_sampled:
            part.strata = sampled_totals.receipts(connection, sequences, by_application=by_application)
        total.add(part, sign)
    _require_sums(total.tokens.total(), total.credit.total(), frame)
    return total


def period_of_receipt(sequence: int, periods: Iterable[Period]) -> Period | None:
    """The period in which a receipt counts; None while it counts in none."""
    previous, last = None, None
    for period in periods:
        is_own = refreeze(period, previous).holds(sequence) and sequence not in period.left_out
        if is_own or sequence in period.taken_in:
            last = period
        previous = period
    return last


def _select(
    connection: Connection, frame: PeriodFrame, earlier: tuple[Period, ...], held: Iterable[str]
) -> _ReceiptSets:
    sets = _ReceiptSets(reversals=_reversals(connection, frame))
    reversed_here = frozenset(sets.reversals.values())
    held_now = _sequences(connection, held)
    sets.left_out = {each for each in held_now if frame.holds(each) and each not in reversed_here}
    out_before = {each for period in earlier for each in period.left_out} - {
        each for period in earlier for each in period.taken_in
    }
    sets.still_out = {each for each in out_before if each in held_now and each not in reversed_here}
    sets.taken_in = out_before - sets.still_out
    _find_taken_back(sets, frame, earlier)
    return sets


def _find_taken_back(sets: _ReceiptSets, frame: PeriodFrame, earlier: tuple[Period, ...]) -> None:
    """Note each reversal of the frame that takes back what counts in an earlier period."""
    for reversal, original in sets.reversals.items():
        if not frame.holds(original) and original not in sets.taken_in:
            period = period_of_receipt(original, earlier)
            if period is None:
                raise LedgerError(f"receipt {reversal} reverses receipt {original}, which counts in no period")
            sets.taken_back[reversal] = period.name


def _responses_taken_back(
    connection: Connection, name: str, sets: _ReceiptSets
) -> dict[str, tuple[ReversedResponse, ...]]:
    lists: dict[str, list[ReversedResponse]] = {}
    for some in queries.batches(sorted(sets.reversals)):
        for reversal in read_receipts(connection, col(ReceiptRow.sequence).in_(some), len(some)):
            counted_in = sets.taken_back.get(reversal.sequence, name)
            for account, amount in reversal.amounts.items():
                if amount and account not in (COMMONS, PENDING):
                    response = ReversedResponse(str(reversal.reverses), counted_in, -amount)
                    lists.setdefault(account, []).append(response)
    return {client: tuple(responses) for client, responses in lists.items()}


def _is_empty(frame: PeriodFrame, selection: _ReceiptSets) -> bool:
    own = frame.up_to - frame.after - len(frame.departures) + len(frame.arrivals)
    return own == len(selection.left_out) and not selection.taken_in


def _reversals(connection: Connection, frame: PeriodFrame) -> dict[int, int]:
    """Each reversal of the frame, and the response that it reverses."""
    booked = reversals_booked(connection, frame.after, frame.up_to, frame.arrived)
    return {taking: taken for taking, taken in sorted(booked) if frame.holds(taking)}


def _sequences(connection: Connection, response_ids: Iterable[str]) -> frozenset[int]:
    sequences: set[int] = set()
    for some in queries.batches(sorted(response_ids)):
        query = select(col(ReceiptRow.sequence)).where(col(ReceiptRow.response_id).in_(some))
        sequences.update(connection.execute(query).scalars())
    return frozenset(sequences)


def _late_receipts(connection: Connection, frame: PeriodFrame, selection: _ReceiptSets) -> set[int]:
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


def _reversed_credit(connection: Connection, selection: _ReceiptSets) -> dict[str, dict[str, int]]:
    """Earlier period -> client -> micro-credits that it had from responses that are reversed here."""
    credit_by_period: dict[str, dict[str, int]] = {}
    for name in dict.fromkeys(selection.taken_back.values()):
        own = [reversal for reversal, period in selection.taken_back.items() if period == name]
        credit = receipt_totals.receipts(connection, own, by_application=False).accounts()
        credit_by_period[name] = {
            client: -amount for client, amount in sorted(credit.items()) if client != COMMONS and amount
        }
    return credit_by_period


def _window(connection: Connection, frame: PeriodFrame, *, by_application: bool) -> receipt_totals.Tally:
    total = receipt_totals.window(connection, frame.after, frame.up_to, by_application=by_application)
    entries = receipt_totals.entries_between(connection, frame.after, frame.up_to)
    _require_sums(total.tokens.total(), entries, frame)
    _require_sums(total.tokens.total(), total.credit.total(), frame)
    return total


def _settled_accounts(connection: Connection) -> list[str]:
    """Every account that a settlement has a line of."""
    return [account for account in queries.accounts(connection) if account != PENDING]


def _require_sums(tokens: int, credit: int, frame: PeriodFrame) -> None:
    if credit != tokens * MICRO_CREDITS_PER_TOKEN:
        raise LedgerError(
            f"receipts {frame.after + 1} to {frame.up_to}: entries sum to {credit} micro-credits, tokens to "
            f"{tokens * MICRO_CREDITS_PER_TOKEN}; somebody wrote past the ledger, period not settled"
        )


def _credit_of(connection: Connection, sequences: Iterable[int]) -> dict[str, int]:
    """Account -> micro-credits of these receipts; without those that have none."""
    return _without_zeros(receipt_totals.receipts(connection, sequences, by_application=False).accounts())


def _without_zeros(credit: Mapping[str, int]) -> dict[str, int]:
    return {account: amount for account, amount in sorted(credit.items()) if amount}
