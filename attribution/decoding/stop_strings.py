"""Stop strings: where a response is cut, and how much of it may be shown while one may still be coming."""

from collections.abc import Sequence


def place_of_stop(text: str, known: int, stops: Sequence[str]) -> int | None:
    """Where the first stop string begins in a text whose first `known` characters held none; None where none does."""
    places = (text.find(stop, max(0, known - len(stop) + 1)) for stop in stops)
    return min((place for place in places if place >= 0), default=None)


def length_to_show(text: str, stops: Sequence[str]) -> int:
    """How many characters begin no stop string, whatever comes: all but the length of the longest, less one."""
    return len(text) - max((len(stop) - 1 for stop in stops), default=0)
