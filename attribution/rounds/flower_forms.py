"""What a reply calls its records, and of which kind the numbers in it are: a strategy averages only what is alike.

Flower's own strategies stop the run where one reply differs. So whoever answers otherwise than most members is left out
before, be it by a slip or to stop the others. Does not judge the numbers.
"""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from attribution.errors import RoundsError
from attribution.files.untrusted import short_repr
from attribution.rounds.flower_messages import Content, record_tensors

_FLOATS = {"F16", "F32", "F64"}  # these NumPy averages with each other


class Form(NamedTuple):
    """How a reply is made, by what has to be alike in all: names, and of numbers that are no usual floats the type."""

    arrays: tuple[str, ...]
    metrics: tuple[tuple[str, tuple[tuple[str, int | None], ...]], ...]
    types: tuple[tuple[str, str], ...]


_WORDS = {
    "arrays": "its record of arrays is called",
    "metrics": "its metrics, with how many numbers each has, are",
    "types": "of other numbers than floating-point ones of 16, 32 or 64 bits it has",
}


def reply_form(content: Content) -> Form | None:
    """The form of a reply; None where it holds what is no tensor, and is refused for that."""
    try:
        tensors = [
            (name, each.dtype)
            for arrays in content.array_records.values()
            for name, each in record_tensors(arrays).items()
        ]
    except RoundsError:
        return None
    metrics = (
        (name, tuple(sorted((key, len(value) if isinstance(value, list) else None) for key, value in record.items())))
        for name, record in content.metric_records.items()
    )
    return Form(
        tuple(content.array_records),
        tuple(sorted(metrics, key=repr)),
        tuple(sorted(each for each in tensors if each[1] not in _FLOATS)),
    )


def usual_form(forms: Iterable[Form | None]) -> Form | None:
    """The form of most replies; of two that are as frequent the first; None where none has any."""
    times = Counter(form for form in forms if form is not None)
    return max(times, key=lambda form: times[form], default=None)


def require_form(form: Form | None, usual: Form | None) -> None:
    """Refuse a reply that is made otherwise than most.

    Raises:
        RoundsError: saying how it differs.
    """
    if form is None or usual is None:
        return
    for field, words in _WORDS.items():
        if (own := getattr(form, field)) != (others := getattr(usual, field)):
            raise RoundsError(f"{words} {short_repr(own)}, and most members' {short_repr(others)}: no average of both")
