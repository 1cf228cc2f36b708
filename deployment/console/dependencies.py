"""The books, for whatever page of the console asks for them."""

from typing import Annotated

from fastapi import Depends, Request

from deployment.books.books import Books


def _books(request: Request) -> Books:
    books: Books = request.app.state.books
    return books


TheBooks = Annotated[Books, Depends(_books)]
