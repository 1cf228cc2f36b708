"""What the open period would pay if it were closed now, computed beside the scrapes, as it may take long.

A preview is at most PREVIEW_EVERY_S old, and its own duration. Reads only; knows no series.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from rewards import periods
from rewards.errors import PeriodError
from rewards.ledger.ledger import Ledger
from rewards.settlement.document import Settlement
from rewards.settlement.policy_file import load_policy

_LOG = logging.getLogger(__name__)
PREVIEW_EVERY_S = 60.0


@dataclass(frozen=True)
class Outlook:
    """A preview of the open period.

    Attributes:
        previous: name of the last closed period; None before the first.
        settlement: what a close would have stored.
        seconds: how long that took to find out.
    """

    previous: str | None
    settlement: Settlement
    seconds: float


class Previews:
    """Previews by a policy file, which is read anew for each, so that a change of it shows.

    Raises:
        PolicyError: the file cannot be read or is no policy; only at the start, for later that is logged.
    """

    def __init__(self, ledger: Ledger, policy: Path) -> None:
        self._ledger = ledger
        self._policy = policy
        self._last: Outlook | None = None
        self.currency = load_policy(policy).currency

    def of(self, previous: str | None) -> Outlook | None:
        """The last preview of the period that follows `previous`; None while there is none, or it cannot be closed."""
        last = self._last
        return last if last is not None and last.previous == previous else None

    def renew(self) -> None:
        """Compute the preview. Whatever fails is logged, and leaves none."""
        try:
            self._last = self._compute()
        except PeriodError as reason:  # nothing was booked, or a draft stands before it
            _LOG.info("there is no preview of the open period: %s", reason)
            self._last = None
        except Exception:  # noqa: BLE001 - whatever it was, an old preview is not told for ever as if it were of now
            _LOG.exception("the open period cannot be previewed; it is tried again")
            self._last = None

    def _compute(self) -> Outlook:
        policy = load_policy(self._policy)
        self.currency = policy.currency
        closed = [period.name for period in periods.all(self._ledger)]
        begun = time.perf_counter()
        settlement = periods.preview(self._ledger, _unused_name(closed), policy).settlement
        return Outlook(closed[-1] if closed else None, settlement, time.perf_counter() - begun)


def _unused_name(names: list[str]) -> str:
    """A name that no period has."""
    return next(name for name in (f"open-{number}" for number in range(len(names) + 1)) if name not in names)
