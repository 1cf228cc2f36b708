"""What is read of the ledger for one scrape, each thing once: what is new is added to what was read before.

Reads only; knows no series.
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.samples import Exemplar

from deployment.metrics.catalogue import DURATION_BUCKETS_S
from deployment.metrics.values import ClientLabels
from rewards.ledger.ledger import Ledger
from rewards.periods.history import HOLD_KINDS, PERIOD_KINDS, History, read_history
from rewards.store import clients, events, publications
from rewards.store.continuity import Continuity
from rewards.store.database import Connection
from rewards.store.publications import Publication
from rewards.views.contribution import Contribution
from rewards.views.ledger_health import Condition, Response, condition, count_misdated, last_responses
from rewards.views.standing import Standing

_BOUNDS_US = tuple(round(bound * 1_000_000) for bound in DURATION_BUCKETS_S)
_RECENT = 100
_LONGEST_ID = 64
"""Of an exemplar's label: OpenMetrics allows an exemplar 128 characters in all."""

Exemplars = Mapping[str, Mapping[int, Exemplar]]


@dataclass(frozen=True)
class LedgerSnapshot:
    """The ledger at one moment.

    Attributes:
        standing: what was booked.
        condition: how the books fare.
        book: periods and holds.
        paid: currency -> account -> minor units that it was awarded in periods that are final or paid.
        events: kind -> how many there are.
        published: consortium -> the publication that answers, and since when in microseconds since 1970.
        clients: the labels of the clients, and what people call them.
        exemplars: consortium -> slot of the durations -> a recent response of it.
        misdated: receipts that say they were made long after they were booked.
        seconds: how long the reading took.
    """

    standing: Standing
    condition: Condition
    book: History
    paid: Mapping[str, Mapping[str, int]]
    events: Mapping[str, int]
    published: Mapping[str, tuple[Publication, int]]
    clients: ClientLabels
    exemplars: Exemplars
    misdated: int
    seconds: float


class SnapshotReader:
    """Reads a ledger again and again; from one thread at a time."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._contribution = Contribution(ledger.database, _BOUNDS_US)
        self._continuity = Continuity(ledger.database)
        self._last: LedgerSnapshot | None = None
        self._event = 0

    def read(self) -> LedgerSnapshot:
        """The ledger as it stands.

        Raises:
            LedgerError: the ledger cannot be read, or a stored settlement was altered; nothing is lost by that.
        """
        begun, last = time.perf_counter(), self._last
        self._continuity.check()
        self._contribution.catch_up()
        standing = self._contribution.now
        with self._ledger.database.read() as connection:
            happened = events.counts(connection, self._event)
            event = events.last_event(connection)
            is_moved = last is None or not happened.keys().isdisjoint((*PERIOD_KINDS, *HOLD_KINDS))
            history = read_history(connection) if last is None or is_moved else last.book
            is_joined = last is None or clients.KIND in happened
            labels = _read_clients(connection) if last is None or is_joined else last.clients
            is_published = last is None or not happened.keys().isdisjoint(
                (publications.PUBLISHED, publications.WITHDRAWN)
            )
            published = _find_published(connection, labels) if last is None or is_published else last.published
            fares = condition(connection)
            after = 0 if last is None else last.standing.sequence
            new = last_responses(connection, after, _RECENT)
            wrong = count_misdated(connection, after, standing.sequence)
        self._event = event
        self._last = LedgerSnapshot(
            standing=standing,
            condition=fares,
            book=history,
            paid=_awards(history) if last is None or is_moved else last.paid,
            events=Counter(happened) + Counter({} if last is None else last.events),
            published=published,
            clients=labels,
            exemplars=_with({} if last is None else last.exemplars, new),
            misdated=wrong + (0 if last is None else last.misdated),
            seconds=time.perf_counter() - begun,
        )
        return self._last


def _read_clients(connection: Connection) -> ClientLabels:
    return ClientLabels(clients.in_order(connection), clients.registrations(connection))


def _find_published(connection: Connection, labels: ClientLabels) -> dict[str, tuple[Publication, int]]:
    histories = {name: publications.history(connection, name) for name in labels.models}
    answers = {name: publications.standing_since(told) for name, told in histories.items()}
    return {name: answer for name, answer in answers.items() if answer is not None}


def _awards(history: History) -> dict[str, dict[str, int]]:
    awards: dict[str, Counter[str]] = {}
    for period in history.periods:
        if period.final is not None:
            payouts = {line.account: line.payout for line in period.final.lines}
            awards.setdefault(period.final.policy.currency, Counter()).update(payouts)
    return {currency: dict(payouts) for currency, payouts in awards.items()}


def _with(exemplars: Exemplars, responses: Sequence[Response]) -> Exemplars:
    """The exemplars with those of newer responses in their places."""
    if not responses:
        return exemplars
    merged = {consortium: dict(slots) for consortium, slots in exemplars.items()}
    for response in responses:
        if len(response.response_id) <= _LONGEST_ID:
            merged.setdefault(response.consortium, {})[bisect_left(_BOUNDS_US, response.duration_us)] = Exemplar(
                {"response_id": response.response_id},
                response.duration_us / 1_000_000,
                response.booked_at_us / 1_000_000,
            )
    return merged
