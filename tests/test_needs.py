"""`make fast` leaves out what needs a server, a browser or another process; these tests prove that it looks."""

import subprocess
import sys
from subprocess import run

import pytest

from tests.needs import NAMES, names_in, needs_of


def call() -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)


class Caller:
    def start(self) -> None:
        call()


def starts(function) -> bool:
    return bool(names_in(function) & NAMES["process"])


def test_whatever_starts_a_process_is_seen_however_far_away():
    """By the module, by a name out of it, in a function within, over a helper's class, and imported on the spot."""

    def on_the_spot() -> None:
        from multiprocessing import Process  # noqa: PLC0415

        Process()

    assert [True] * 5 == [
        starts(call),
        starts(lambda: run(["true"], check=True)),
        starts(lambda: [call for _ in range(2)]),
        starts(lambda: Caller().start()),
        starts(on_the_spot),
    ]


def test_what_starts_nothing_is_fast():
    """Names that mean nothing of the kind, and functions that call each other in a circle."""

    def even(number: int) -> bool:
        return number == 0 or odd(number - 1)

    def odd(number: int) -> bool:
        return number != 0 and even(number - 1)

    assert [False, False] == [starts(even), starts(lambda: sys.path)]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_parameter_says_which_database(request: pytest.FixtureRequest, database: str):
    """Of a test on both databases, only the half on PostgreSQL waits for its server."""
    assert ({"postgresql"} if database == "postgresql" else set()) == needs_of(request.node)
