"""`/statements`: each client's signed statements to take away, as the operator API gives them, byte for byte."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response

from deployment.books.books import Books
from deployment.books.log import verify_keys
from deployment.books.periods import closed_periods
from deployment.books.settlement_table import names_in
from deployment.books.statements import FORMATS, issue_statement, statement_file, written_statements
from deployment.console.dependencies import TheBooks
from deployment.console.rendering import TheViewer, Viewer, render
from deployment.errors import NotFoundError, UnavailableError
from deployment.http.cursors import Cursor, cursor_at, place_of
from deployment.schemas.fields import Name

router = APIRouter()

_LIST = "statements"
_ROWS = 100

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
    return _page(request, viewer, books, period=period, client=client, cursor=cursor)


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
    try:
        document = issue_statement(books, viewer.visible, period, client)
    except UnavailableError as error:
        problem = f"The statement cannot be given out now: {error.message}."
        return _page(request, viewer, books, period=period, client=client, problem=problem, status=error.status)
    statement = statement_file(document, form)
    return Response(statement.content, media_type=statement.media_type, headers=statement.headers)


def public_keys(books: Books) -> list[str]:
    """Every public key that the books name, oldest first, as `--public-key` files have it."""
    return [key.public for key in verify_keys(books)]


def _final(books: Books, viewer: Viewer) -> list[str]:
    """The names of the periods of which there are statements, the last first."""
    return [each.name for each in closed_periods(books, viewer.visible) if each.state in ("final", "paid")][::-1]


def _page(
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
    names = names_in(books.ledger) if viewer.visible is None else {}
    (after,) = place_of(_LIST, cursor, int) or (0,)
    page = written_statements(
        books, viewer.visible, period=period or None, client=client or None, after=int(after), limit=_ROWS
    )
    return render(
        request,
        "statements.html",
        status,
        statements=page.rows,
        later=cursor_at(_LIST, page.place),
        periods=_final(books, viewer),
        period=period,
        client=client,
        names=names,
        keys=public_keys(books),
        problem=problem,
    )
