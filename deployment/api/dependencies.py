"""What the routes of the operator API work with, and whose figures a caller may see."""

from typing import Annotated

from fastapi import Depends, Request

from deployment.access.gate import caller, visible_client
from deployment.books.books import Books
from rewards.keys.rules import Key


def _books(request: Request) -> Books:
    books: Books = request.app.state.books
    return books


TheBooks = Annotated[Books, Depends(_books)]
Caller = Annotated[Key, Depends(caller)]
Visible = Annotated[str | None, Depends(visible_client)]
"""The one client whose figures the caller may see; None for whoever may see all of them."""
