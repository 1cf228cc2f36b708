"""What a test needs beside this process and files: read off its code and its fixtures, so that no list is kept by hand.

Knows nothing of what a test is about. Whoever reaches, by name, a module that starts processes or listens on ports
needs one; whoever asks for the server of PostgreSQL, or has it as a parameter, needs that.
"""

from collections.abc import Iterator
from functools import cache
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import pytest

STARTERS = {"subprocess", "multiprocessing", "uvicorn", "playwright", "psutil", "fork", "create_server", "bind"}
"""Modules and functions by which tests start something: another Python, promtool, a server on a port, a browser."""
STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "socket.bind"}
"""The audit events of a start. https://docs.python.org/3/library/audit_events.html"""


def needs_of(item: pytest.Item) -> set[str]:
    """The markers that a test should bear, of `postgresql` and `process`."""
    needs: set[str] = set()
    if not isinstance(item, pytest.Function):
        return needs
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    if "postgresql" in item.fixturenames or "postgresql" in parameters:
        needs.add("postgresql")
    fixtures = item._fixtureinfo.name2fixturedefs.values()
    functions = [item.function, *(fixture.func for fixtures_of_name in fixtures for fixture in fixtures_of_name)]
    if any(starts_something(function) for function in functions):
        needs.add("process")
    return needs


@cache
def starts_something(function: Any) -> bool:
    """Whether a function of the tests, or one that it names, starts a process or a server."""
    return _starts(function, set())


def _starts(value: Any, seen: set[int]) -> bool:
    """Whether a value is, or a function's code names, something that starts a process or a server."""
    if isinstance(value, ModuleType):
        return value.__name__.split(".")[0] in STARTERS
    if id(value) in seen:
        return False
    seen.add(id(value))
    home = getattr(value, "__module__", None) or ""
    if home.split(".")[0] in STARTERS:
        return True
    if not home.startswith("tests"):
        return False
    return any(_reaches(function, seen) for function in _functions(value))


def _reaches(function: FunctionType, seen: set[int]) -> bool:
    names = {*_names(function.__code__)}
    named = [function.__globals__[name] for name in names if name in function.__globals__]
    return any(name.split(".")[0] in STARTERS for name in names) or any(_starts(each, seen) for each in named)


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
