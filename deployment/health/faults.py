"""Watches what a service stands on, so that it says what is wrong instead of going on into nothing.

Each part is looked at once a second in a thread of its own, so that one that hangs holds up no other; to ask what was
found costs nothing and never waits. A ledger that is away is no fault, as receipts wait for it; one that is lost is.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from deployment.errors import RETRY_AFTER_S, PartLostError, UnavailableError
from deployment.health.watched_parts import Check
from deployment.http.exception_handlers import LOST
from rewards.errors import LedgerError, LedgerLostError

_LOG = logging.getLogger(__name__)
INTERVAL_S = 1.0
_HOW = {
    "missing": "is gone",
    "replaced": "is another one than when the service started",
    "damaged": "is damaged",
    "unreachable": "does not answer",
    "unsuitable": "does not serve the model that is set",
    "unchecked": "is being compared with the bundle",
    "differs": "serves other weights than the bundle's",
}


@dataclass(frozen=True)
class Fault:
    """A part that is not as it was; `code` is the part and what became of it.

    `message` is for anybody, and names no path; `cause` is for the service's own log.
    """

    part: str
    code: str
    message: str
    cause: str

    def error(self) -> UnavailableError:
        """What whoever asks the service for something is told."""
        return UnavailableError(self.message, code=self.code, retry_after_s=RETRY_AFTER_S)


class Watch:
    """Looks at parts until it is closed; may be asked from any thread.

    Args:
        checks: each part's name and how it is looked at.
        interval_s: how often.
    """

    def __init__(self, checks: Mapping[str, Check], interval_s: float = INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._found: dict[str, Fault | None] = dict.fromkeys(checks)
        self._closing = threading.Event()
        for part, check in checks.items():
            threading.Thread(target=self._run, args=(part, check), name=f"protoken-watch-{part}", daemon=True).start()

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What is wrong, as it was found last."""
        return tuple(fault for fault in self._found.values() if fault is not None)

    @property
    def parts(self) -> dict[str, str]:
        """Each part with `ok`, or with what is wrong with it."""
        return {part: "ok" if fault is None else fault.message for part, fault in self._found.items()}

    def require(self, part: str | None = None) -> None:
        """Refuse where a part, or any of them when that is None, is not as it was.

        Raises:
            UnavailableError: its code says which part, and what became of it.
        """
        for fault in self.faults:
            if part in (None, fault.part):
                raise fault.error()

    def close(self) -> None:
        """Look no more."""
        self._closing.set()

    def _run(self, part: str, check: Check) -> None:
        while not self._closing.is_set():
            try:
                fault = _look(part, check)
            except Exception:  # noqa: BLE001 - whatever it was, the next look may tell; without a thread nothing does
                _LOG.exception("the %s could not be looked at", part)
            else:
                self._note(part, fault)
            self._closing.wait(self._interval_s)

    def _note(self, part: str, fault: "Fault | None") -> None:
        before, self._found[part] = self._found[part], fault
        if fault is not None and fault != before:
            _LOG.error("%s; until that is mended nothing is served: %s", fault.message, fault.cause)
        elif fault is None and before is not None:
            _LOG.warning("what was wrong is mended: %s", before.message)


def _look(part: str, check: Check) -> Fault | None:
    try:
        check()
    except LedgerLostError as error:
        return Fault(part, error.code, LOST[error.code], str(error))
    except PartLostError as error:
        how = _HOW[error.code.rpartition("_")[2]]
        return Fault(part, error.code, f"the service's {_words(part)} {how}", str(error))
    except LedgerError:
        return None
    except OSError as error:
        return Fault(part, f"{part}_unreadable", f"the service's {_words(part)} cannot be read", str(error))
    return None


def _words(part: str) -> str:
    return "folder of texts" if part == "texts" else part.replace("_", " ")
