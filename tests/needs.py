"""What a test needs beside Python and files: read off its code and its fixtures, so that no list is kept by hand.

Knows nothing of what a test is about. Whoever names, however far away within tests, one of the modules or functions
below needs what goes with it; whoever asks for the server of PostgreSQL, or has it as a parameter, needs that.
"""

from collections.abc import Iterator
from functools import cache
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import pytest

NAMES = {
    "process": {
        "subprocess",
        "multiprocessing",
        "uvicorn",
        "playwright",
        "psutil",
        "fork",
        "create_server",
        "bind",
        "TCPSite",
        "service_apart",
    },
    "model": {"torch", "transformers"},
    "app": {"TestClient"},
}
"""By marker: by which modules and functions a test starts a process, server or browser, or runs a model or the app."""
NOT_FAST = ("slow", "postgresql", *NAMES)
"""The markers of tests that `make fast` leaves out."""
STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"}
"""The audit events of a start. https://docs.python.org/3/library/audit_events.html"""


def needs_of(item: pytest.Item) -> set[str]:
    """The markers that a test should bear: `postgresql`, and those of `NAMES`."""
    needs: set[str] = set()
    if not isinstance(item, pytest.Function):
        return needs
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    if "postgresql" in item.fixturenames or "postgresql" in parameters:
        needs.add("postgresql")
    fixtures = item._fixtureinfo.name2fixturedefs.values()
    functions = [item.function, *(fixture.func for fixtures_of_name in fixtures for fixture in fixtures_of_name)]
    names = set().union(*(names_in(function) for function in functions))
    return needs | {marker for marker, those in NAMES.items() if names & those}


@cache
def names_in(function: Any) -> frozenset[str]:
    """Whatever a function of the tests names, and what those of the tests name that it names, however far away."""
    names: set[str] = set()
    _look(function, names, set())
    return frozenset(names)


def _look(value: Any, names: set[str], seen: set[int]) -> None:
    home = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None) or ""
    names.add(home.split(".")[0])
    if id(value) in seen or not home.startswith("tests"):
        return
    seen.add(id(value))
    for function in _functions(value):
        _look_within(function, names, seen)


def _look_within(function: FunctionType, names: set[str], seen: set[int]) -> None:
    """Look at what a function names, be it in its own module or in another that it names."""
    of_code = {*_names(function.__code__)}
    names |= {name.split(".")[0] for name in of_code}
    named = [function.__globals__[name] for name in of_code if name in function.__globals__]
    modules = [each for each in named if isinstance(each, ModuleType) and each.__name__.startswith("tests.")]
    for value in [*named, *(vars(module)[name] for module in modules for name in of_code if name in vars(module))]:
        _look(value, names, seen)


def _functions(value: Any) -> Iterator[FunctionType]:
    """A function, or those of a class; under whatever they are wrapped in."""
    value = getattr(value, "__wrapped__", value)
    if isinstance(value, type):
        yield from (each for each in vars(value).values() if isinstance(each, FunctionType))
    elif isinstance(value, MethodType):
        yield value.__func__
    elif isinstance(value, FunctionType):
        yield value


def _names(code: CodeType) -> Iterator[str]:
    """Globals, attributes and modules that code names, also in what it defines."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
