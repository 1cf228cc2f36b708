"""Long work in pieces of a few milliseconds, between which whoever runs it may do something else with the model.

A scoring pass is a generator that yields after each block of the network: a decoder's next step does not wait for a
whole response to be scored. Nothing of a piece is left on the model, nor in torch's modes, when it yields.
"""

from collections.abc import Generator
from typing import TypeVar

_Result = TypeVar("_Result")

Pieces = Generator[None, None, _Result]
"""Work that yields between its pieces and returns its result."""


def run(work: Pieces[_Result]) -> _Result:
    """The result of work that nobody interrupts."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: _Result = end.value
            return result
