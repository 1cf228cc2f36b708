"""How right the shares of models are, as the books have it, for whoever may see it: what is in it is no one client's.

Reads only, and measures nothing.
"""

from deployment.books.books import Books
from deployment.schemas.calibrations import Calibration
from rewards.store import calibrations, publications


def list_calibrations(books: Books, visible: str | None, consortium: str | None = None) -> list[Calibration]:
    """The latest calibration of each model, in the order in which they were booked.

    Args:
        books: where they are written.
        visible: the only client of whose consortia it may be told; None is all of them.
        consortium: of this one alone.
    """
    names = [name for name in _consortia(books, visible) if consortium in (None, name)]
    with books.ledger.database.read() as connection:
        told = [event for name in names for event in calibrations.latest(connection, name)]
    return [
        Calibration.model_validate(
            {
                "sequence": event.sequence,
                "booked_at_us": event.at_us,
                "booked_by": event.actor,
                "salt": event.salt,
                "once": event.once,
                "report": event.document,
            }
        )
        for event in sorted(told, key=lambda event: event.sequence)
    ]


def list_uncalibrated(books: Books, visible: str | None) -> list[str]:
    """Consortia of whose served model nothing was measured; where none was published, of none of whose models.

    Args:
        books: where that is written.
        visible: the only client of whose consortia it may be told; None is all of them.
    """
    names = _consortia(books, visible)
    with books.ledger.database.read() as connection:
        measured = {
            name: {event.document["model_sha256"] for event in calibrations.latest(connection, name)} for name in names
        }
        served = {name: publications.standing(connection, name)[-1:] for name in names}
    return [
        name
        for name in names
        if (served[name] and served[name][0].model_sha256 not in measured[name]) or not (served[name] or measured[name])
    ]


def _consortia(books: Books, visible: str | None) -> list[str]:
    registered = books.ledger.clients()
    return [name for name, members in registered.items() if visible is None or visible in members]
