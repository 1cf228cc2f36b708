"""This machine's clock, against a database server's and what the ledger has stamped. Changes nothing of either."""

import time
from collections.abc import Callable

from deployment.cli.doctor.findings import DoubtError, FaultError
from rewards.log.checkpoints import latest_checkpoint
from rewards.moments import text_of
from rewards.store import queries
from rewards.store.database import connect_unchanged, now_us
from rewards.store.url import sqlite_file

DOUBTFUL_S, WRONG_S = 2.0, 60.0
"""How far clocks may be apart: computers that are set by NTP are within a hundredth of a second."""


def look_at_clock(url: str, clock: Callable[[], int] = time.time_ns) -> str:
    """This machine's clock, against a database server's and the newest that the ledger has stamped.

    Raises:
        FaultError: it is far off.
        DoubtError: it is a little off.
    """
    with connect_unchanged(url) as connection:
        here = clock() // 1000
        server = now_us(connection) if sqlite_file(url) is None else here
        sealed, last = latest_checkpoint(connection), queries.last_sequence(connection, None)
        booked = queries.booking_time_us(connection, last) or 0
    newest = max(booked, 0 if sealed is None else sealed.sealed_at_us)
    _require_near(
        (server - here) / 1e6, f"this clock says {text_of(here)}, and the database server's {text_of(server)}"
    )
    behind = max(0, newest - server) / 1e6
    _require_near(behind, f"the clock says {text_of(server)}, and the ledger was stamped {text_of(newest)} already")
    return f"{text_of(here)}, after all that the ledger has stamped"


def _require_near(apart_s: float, words: str) -> None:
    kind = FaultError if abs(apart_s) > WRONG_S else DoubtError
    if abs(apart_s) > DOUBTFUL_S:
        raise kind(f"{words}, {abs(apart_s):.0f} s apart: set the clock, as by NTP")
