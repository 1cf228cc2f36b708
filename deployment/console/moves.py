"""What a form asks to be done to the books: done where it was confirmed, or else a sentence that says why not.

Knows no period and no hold; what may be done is the business of `deployment.books`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic import ValidationError

from deployment.errors import ApiError
from deployment.http.exception_handlers import to_api_error
from rewards.errors import CreditError, HoldError, PeriodError, PolicyError

REFUSALS: Final = (ApiError, PeriodError, HoldError, PolicyError, CreditError)
"""What is told on the page that was used, and not on one of its own."""

Done = TypeVar("Done")


@dataclass(frozen=True)
class Refusal:
    """Why nothing was done, as a sentence, and the status that this has."""

    problem: str
    status: int


def attempt(move: Callable[[], Done], confirmed: str) -> Done | Refusal:
    """Make a move that was confirmed.

    Args:
        move: does it, with what was typed into the form.
        confirmed: whether the box was ticked: any text, or none.

    Returns:
        What the move gives; or why it was not made.
    """
    if not confirmed:
        return Refusal("Nothing was done: tick the box to confirm it.", 400)
    try:
        return move()
    except ValidationError as error:
        fault = error.errors()[0]
        return Refusal(f"Nothing was done: {fault['loc'][0]}: {fault['msg'].removeprefix('Value error, ')}.", 400)
    except REFUSALS as error:
        refusal = to_api_error(error)
        return Refusal(f"Nothing was done: {refusal.message}.", refusal.status)
