"""What was found of one thing: in order, doubtful or wrong, in one line. Knows nothing of what is looked at."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from attribution.errors import AttributionError
from deployment.errors import ServiceError
from rewards.errors import RewardsError


class State(StrEnum):
    """How a thing is."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        item: what it is.
        state: how it is.
        message: one line that names file, setting or value, and what would be right where it is not.
    """

    item: str
    state: State
    message: str


class DoubtError(Exception):
    """A thing that works and should not stay so."""


class FaultError(Exception):
    """A thing that will not work, and that no start refuses."""


def finding_of(item: str, look: Callable[[], str]) -> Finding:
    """What a look found: it returns how a thing is in order, or raises what is wrong with it, as the service would."""
    try:
        return Finding(item, State.OK, look())
    except DoubtError as doubt:
        return Finding(item, State.WARNING, str(doubt))
    except OSError as error:
        return Finding(item, State.WRONG, f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (FaultError, ServiceError, RewardsError, AttributionError) as error:
        return Finding(item, State.WRONG, str(error))


def require_no(doubts: list[str]) -> None:
    """Return where there are none.

    Raises:
        DoubtError: names all of them.
    """
    if doubts:
        raise DoubtError("; ".join(doubts))
