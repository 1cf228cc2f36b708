"""What the events say of periods and holds, checked as it is read. Writes nothing; knows no receipt.

Two events of a period carry a document, `period.draft` and `period.final`: its ordinal, its window, the moment it ends
(`until_us`), how it differs from the receipts of its window (`deferred`, `left_out`, `taken_in`, `reversed`), its
settlement, and as `sha256` the hash of all of that. Where responses are sampled, it reveals the keys by which they were
chosen up to its close (`sampling_keys`). Since the second rule of settlement also when its window was frozen
(`as_of_us`), and what it takes back of each earlier period (`clawbacks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, select
from sqlmodel import col

from rewards.credit import canonical_bytes
from rewards.errors import LedgerError
from rewards.files.strict_json import JsonObject
from rewards.settlement.document import Settlement
from rewards.store import events
from rewards.store.events import Event
from rewards.store.tables import EventRow

PERIOD_KINDS = ("period.draft", "period.disputed", "period.final", "period.paid")
HOLD_KINDS = ("hold.placed", "hold.released")


@dataclass(frozen=True)
class Period:
    """A period that was closed, as it stands now.

    Attributes:
        name: as in "2026-11".
        ordinal: 1 for the ledger's first period.
        state: "draft", "disputed", "final" or "paid".
        window: (after, up to): receipts with after < sequence ≤ up_to.
        until_us: the moment it ends: what was made at or after it (microseconds since 1970) is the next period's.
        as_of_us: when its window was frozen; None of periods of the first rule.
        deferred: receipts that were made at or after its end, of its window or handed on by the period before; they
            count in a later one.
        left_out: responses that would count here, but were held when it was settled last.
        taken_in: responses left out of an earlier period that count here, as they were released or reversed since.
        reversed: earlier period -> client -> micro-credits that reversals booked here take back from it.
        clawbacks: earlier period -> client -> minor units of its currency that are taken back for that; empty by the
            first rule, which did not tell them apart.
        sampling_keys: keys of sampling that its close revealed, as documents.
        draft: the settlement when it was closed.
        final: the settlement that is paid; None while it may be disputed.
        moves: its events, in their order.
    """

    name: str
    ordinal: int
    state: str
    window: tuple[int, int]
    until_us: int
    as_of_us: int | None
    deferred: tuple[int, ...]
    left_out: tuple[int, ...]
    taken_in: tuple[int, ...]
    reversed: Mapping[str, Mapping[str, int]]
    clawbacks: Mapping[str, Mapping[str, int]]
    sampling_keys: tuple[JsonObject, ...]
    draft: Settlement
    final: Settlement | None
    moves: tuple[Event, ...]

    @property
    def settlement(self) -> Settlement:
        """The final settlement; the draft while there is none."""
        return self.final or self.draft

    @property
    def closed_at_us(self) -> int:
        """When it was closed, in microseconds since 1970."""
        return self.moves[0].at_us


@dataclass(frozen=True)
class Hold:
    """What is not to be paid for the time being: a client's payout, or the credit of one response.

    Attributes:
        hold_id: as in "hold-3".
        kind: "client" or "response".
        target: the client's or the response's id.
        reason: why, for whoever reads the books.
        actor: who placed it.
        placed_at_us: when, in microseconds since 1970.
        released_at_us: when it ended; None while it is active.
    """

    hold_id: str
    kind: str
    target: str
    reason: str
    actor: str
    placed_at_us: int
    released_at_us: int | None


@dataclass(frozen=True)
class History:
    """Every period and every hold, in their order, and the sequence number of the last event about one."""

    periods: tuple[Period, ...]
    holds: tuple[Hold, ...]
    last_event: int

    def find(self, name: str) -> Period | None:
        """The period of that name; None when there is none."""
        return next((period for period in self.periods if period.name == name), None)

    def before(self, ordinal: int) -> Period | None:
        """The period before the one of that ordinal; None before the first."""
        return self.periods[ordinal - 2] if ordinal > 1 else None

    def held_targets(self, kind: str) -> frozenset[str]:
        """The targets of the active holds of a kind."""
        return frozenset(hold.target for hold in self.holds if hold.kind == kind and hold.released_at_us is None)


def read_history(connection: Connection) -> History:
    """The book as it stands.

    Raises:
        LedgerError: the document of a period does not match its hash; the period is named.
    """
    told = events.find(connection, kinds=(*PERIOD_KINDS, *HOLD_KINDS))
    moves: dict[str, list[Event]] = {}
    for event in told:
        if event.kind in PERIOD_KINDS:
            moves.setdefault(event.subject, []).append(event)
    return History(
        periods=tuple(_period(own) for own in moves.values()),
        holds=_holds(event for event in told if event.kind in HOLD_KINDS),
        last_event=told[-1].sequence if told else 0,
    )


def read_period(connection: Connection, name: str) -> Period | None:
    """One period alone, as `read_history` would find it; None when there is none.

    Raises:
        LedgerError: its document does not match its hash.
    """
    moves = events.find(connection, kinds=PERIOD_KINDS, subject=name)
    return _period(moves) if moves else None


def read_holds(connection: Connection) -> tuple[Hold, ...]:
    """Every hold, active or released, in the order of placing."""
    return _holds(events.find(connection, kinds=HOLD_KINDS))


def open_window(connection: Connection) -> int:
    """The last receipt of the last closed period's window; what is booked after it is in the open period."""
    last = last_closed(connection)
    if last is None:
        return 0
    (draft,) = events.find(connection, kinds=["period.draft"], subject=last)
    return int(_check_hash(draft)["window"]["up_to"])


def last_closed(connection: Connection) -> str | None:
    """The name of the last closed period; None before the first."""
    query = select(col(EventRow.subject)).where(col(EventRow.kind) == "period.draft")
    return connection.execute(query.order_by(col(EventRow.sequence).desc()).limit(1)).scalar_one_or_none()


def add_hash(document: Mapping[str, Any]) -> JsonObject:
    """The document with the hash that `read_history` will check it by."""
    return {**document, "sha256": sha256(canonical_bytes(dict(document))).hexdigest()}


def _check_hash(event: Event) -> JsonObject:
    document = {name: value for name, value in event.document.items() if name != "sha256"}
    if sha256(canonical_bytes(document)).hexdigest() != event.document.get("sha256"):
        raise LedgerError(
            f"the stored {event.kind.removeprefix('period.')} settlement of period {event.subject!r} (event "
            f"{event.sequence}) does not match its hash; it was altered"
        )
    return document


def _period(moves: Sequence[Event]) -> Period:
    documents = {move.kind: _check_hash(move) for move in moves if move.kind in ("period.draft", "period.final")}
    if moves[0].kind != "period.draft":
        raise LedgerError(f"period {moves[0].subject!r} begins with {moves[0].kind}, not with a draft; it was altered")
    final = documents.get("period.final")
    document = final or documents["period.draft"]
    return Period(
        name=moves[0].subject,
        ordinal=document["ordinal"],
        state=moves[-1].kind.removeprefix("period."),
        window=(document["window"]["after"], document["window"]["up_to"]),
        until_us=document["until_us"],
        as_of_us=document.get("as_of_us"),
        deferred=tuple(document["deferred"]),
        left_out=tuple(document["left_out"]),
        taken_in=tuple(document["taken_in"]),
        reversed=document["reversed"],
        clawbacks=document.get("clawbacks", {}),
        sampling_keys=tuple(document.get("sampling_keys", ())),
        draft=Settlement.from_document(documents["period.draft"]["settlement"]),
        final=None if final is None else Settlement.from_document(final["settlement"]),
        moves=tuple(moves),
    )


def _holds(told: Iterable[Event]) -> tuple[Hold, ...]:
    placed: dict[str, Event] = {}
    released: dict[str, int] = {}
    for event in told:
        if event.kind == "hold.placed":
            placed[event.subject] = event
        else:
            released[event.subject] = event.at_us
    return tuple(
        Hold(
            hold_id,
            event.document["kind"],
            event.document["target"],
            event.document["reason"],
            event.actor,
            event.at_us,
            released.get(hold_id),
        )
        for hold_id, event in placed.items()
    )
