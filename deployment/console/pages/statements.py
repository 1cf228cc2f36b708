"""`/statements`: each client's signed statements to take away, as the operator API gives them, byte for byte."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response

from deployment.api.dependencies import TheBooks
from deployment.api.paging import Cursor, Paging
from deployment.api.routes import log, statements
from deployment.books.books import Books
from deployment.console.figures.settlement_table import names_in
from deployment.console.pages.periods import every
from deployment.console.rendering import TheViewer, Viewer, render
from deployment.errors import NotFoundError, UnavailableError
from deployment.schemas.fields import Name

__all__ = ["public_keys", "router"]

router = APIRouter()

FORMATS = ("json", "csv", "html")
_ROWS = 100
_MOST = 1000

Filter = Annotated[str, Query(max_length=200, pattern=r"^[^\x00]*$")]


@router.get("/statements")
def list_page(
    request: Request,
    viewer: TheViewer,
    books: TheBooks,
    period: Filter | None = None,
    client: Filter = "",
    cursor: Cursor = None,
) -> HTMLResponse:
    """The statements that the viewer may have, of one period or client where one is given.

    Who may see everybody's is shown the last period's first; a member has one of each period, and sees them all.
    """
    if period is None:
        final = _final(books, viewer) if viewer.visible is None and not client else []
        period = final[0] if final else ""
    return _listed(request, viewer, books, period=period, client=client, cursor=cursor)


@router.get("/statements/keys.pub")
def keys_file(books: TheBooks) -> PlainTextResponse:
    """The public keys that the books name, one a line, as `--public-key` takes them."""
    text = "".join(f"{key}\n" for key in public_keys(books))
    return PlainTextResponse(text, headers={"Content-Disposition": 'attachment; filename="keys.pub"'})


@router.get("/statements/{period}/{file}")
def download(request: Request, viewer: TheViewer, books: TheBooks, period: Name, file: Name) -> Response:
    """A statement: `{client}.json` is what is signed, `.csv` its money, `.html` a page to print."""
    client, _, form = file.rpartition(".")
    if form not in FORMATS:
        raise NotFoundError("there is no such page", code="unknown_route")
    asked = statements.StatementForm.model_validate({"format": form})
    try:
        return statements.statement(books, viewer.visible, period, client, asked)
    except UnavailableError as error:
        problem = f"The statement cannot be given out now: {error.message}."
        return _listed(request, viewer, books, period=period, client=client, problem=problem, status=error.status)


def public_keys(books: Books) -> list[str]:
    """Every public key that the books name, oldest first, as `--public-key` files have it."""
    return [key.public for key in log.keys(books, Paging(limit=_MOST)).data]


def _final(books: Books, viewer: Viewer) -> list[str]:
    """The names of the periods of which there are statements, the last first."""
    return [each.name for each in every(books, viewer.visible) if each.state in ("final", "paid")][::-1]


def _listed(
    request: Request,
    viewer: Viewer,
    books: Books,
    *,
    period: str,
    client: str,
    cursor: str | None = None,
    problem: str | None = None,
    status: int = 200,
) -> HTMLResponse:
    asked = statements.StatementFilters(period=period or None, client=client or None, cursor=cursor, limit=_ROWS)
    names = names_in(books) if viewer.visible is None else {}
    return render(
        request,
        "statements.html",
        status,
        statements=statements.list_statements(books, viewer.visible, asked),
        periods=_final(books, viewer),
        period=period,
        client=client,
        names=names,
        keys=public_keys(books),
        problem=problem,
    )
