"""The figures that pages show: read in the background when somebody looks, so that no page adds up a whole ledger."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Request

from rewards.errors import LedgerError
from rewards.ledger.ledger import Ledger
from rewards.log import checkpoints, sealer
from rewards.log.checkpoints import SealedCheckpoint
from rewards.periods.history import PERIOD_KINDS
from rewards.store import events, queries
from rewards.store.database import now_us
from rewards.views.contribution import Contribution
from rewards.views.standing import Standing

FRESH_S = 2.0
"""How old a reading may be before a page that asks has another one begun."""
WAIT_S = 0.5
"""How long a page waits for it, as what was booked since is mostly little; after that it shows the last reading."""
FIRST_WAIT_S = 0.12
"""How long a page waits for the very first reading: of a big ledger it takes seconds, and a page says so at once."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class FiguresSnapshot:
    """The ledger's figures as they were at one moment, of everybody: `view` says what of it a page may show.

    Attributes:
        standing: what everybody earned.
        clients: consortium -> client id -> display name, in the order of registration.
        last_booked_us: when the last receipt was booked; None where there is none. As all moments, in microseconds
            since 1970.
        state: of the last closed period; None before the first.
        checkpoint: the last one; None before the first.
        unsealed: receipts and events that are not in the log yet.
        read_at_us: the moment of this reading.
        away_since_us: since when the ledger cannot be read; None while it can.
    """

    standing: Standing
    clients: Mapping[str, Mapping[str, str]]
    last_booked_us: int | None
    state: str | None
    checkpoint: SealedCheckpoint | None
    unsealed: int
    read_at_us: int
    away_since_us: int | None = None

    @property
    def names(self) -> dict[str, str]:
        """Client id -> display name as registered first, in the order of registration."""
        names: dict[str, str] = {}
        for members in self.clients.values():
            for client, name in members.items():
                names.setdefault(client, name)
        return names


class Figures:
    """The figures of one console; usable from several threads. The first reading begins at once.

    Args:
        ledger: what is read.
        clock: seconds that never go back.

    Attributes:
        away_since_us: since when nothing can be read, in microseconds since 1970; None while it can.
    """

    def __init__(self, ledger: Ledger, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._contribution = Contribution(ledger.database)
        self._clock = clock
        self._lock = threading.Lock()
        self._under_way: threading.Event | None = None
        self._ended_at: float | None = None
        self._last: FiguresSnapshot | None = None
        self.away_since_us: int | None = None
        self._begin_if_due()

    def now(self) -> FiguresSnapshot | None:
        """The latest reading, some seconds old at most where the ledger can be read; None before the first has ended.

        Nobody who asks waits for longer than `WAIT_S`, and before the first has ended than `FIRST_WAIT_S`.
        """
        under_way = self._begin_if_due()
        if under_way is not None:
            under_way.wait(FIRST_WAIT_S if self._last is None else WAIT_S)
        return self._last

    def names(self) -> dict[str, str]:
        """Client id -> display name, in the order of registration, by the last reading; does not wait for one."""
        return {} if self._last is None else self._last.names

    def _begin_if_due(self) -> threading.Event | None:
        """The end of the reading that is under way, if need be from now on; None where the last one will do."""
        with self._lock:
            is_fresh = self._ended_at is not None and self._clock() - self._ended_at < FRESH_S
            if self._under_way is None and not is_fresh:
                self._under_way = threading.Event()
                threading.Thread(target=self._read, name="protoken-figures", daemon=True).start()
            return self._under_way

    def _read(self) -> None:
        at_us = now_us()
        snapshot = None
        try:
            self._contribution.catch_up()
            snapshot = self._take_snapshot(at_us)
        except LedgerError as error:
            _LOG.error("the figures of the console cannot be read: %s", error)
        except Exception:  # noqa: BLE001 - whatever it was, pages say that they show old figures, and it is tried again
            _LOG.exception("the figures of the console cannot be read")
        with self._lock:
            ended, self._under_way = self._under_way, None
            self._ended_at = self._clock()  # before what came of it: who sees that may ask for the next one
            self._keep(snapshot, at_us)
        if ended is not None:
            ended.set()

    def _keep(self, snapshot: FiguresSnapshot | None, at_us: int) -> None:
        if snapshot is not None:
            self._last, self.away_since_us = snapshot, None
            return
        self.away_since_us = self.away_since_us or at_us
        if self._last is not None:
            self._last = replace(self._last, away_since_us=self.away_since_us)

    def _take_snapshot(self, at_us: int) -> FiguresSnapshot:
        standing = self._contribution.now
        last = standing.open.previous
        with self._ledger.database.read() as connection:
            moves = [] if last is None else events.find(connection, kinds=PERIOD_KINDS, subject=last)
            return FiguresSnapshot(
                standing,
                self._ledger.clients(),
                queries.booking_time_us(connection, standing.sequence),
                moves[-1].kind.removeprefix("period.") if moves else None,
                checkpoints.latest_checkpoint(connection),
                sum(sealer.count_unsealed(connection)),
                at_us,
            )


def _figures(request: Request) -> Figures:
    figures: Figures = request.app.state.figures
    return figures


TheFigures = Annotated[Figures, Depends(_figures)]
