"""`/statements`: what each client is told of a final period, signed; as JSON, as CSV, and as a page to print."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from deployment.api.dependencies import TheBooks, Visible
from deployment.api.paging import Listing, Paging
from deployment.books.statements import issue_statement, statement_file, written_statements
from deployment.http.cursors import cursor_at, place_of
from deployment.schemas.errors import failures
from deployment.schemas.explained_statements import ExplainedStatement
from deployment.schemas.fields import Name
from deployment.schemas.statements import SampledStatement, Statement, StatementEntry

router = APIRouter(tags=["statements"])
_LIST = "statements"

_PERIOD = Path(description="The name of a final period.")
_CLIENT = Path(description="The client's id; a member's key sees its own alone.")
_TEXTS = {
    "text/csv": "line,minor units,amount in EUR,client,period\ngross,500000,5000.00,clinic,2026-11\n",
    "text/html": '<!DOCTYPE html>\n<html lang="en">…</html>\n',
}
_CONTENT = {media: {"schema": {"type": "string"}, "example": text} for media, text in _TEXTS.items()}


class StatementFilters(Paging):
    """Which statements are meant, and which page of them."""

    period: Name | None = Field(None, description="Of this period alone.")
    client: Name | None = Field(None, description="Of this client alone; a member's key sees its own anyway.")


class StatementForm(BaseModel):
    """As what a statement is wanted."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["json", "csv", "html"] = Field(
        "json", description="`json` is what is signed and can be verified; `csv` its money; `html` a page to print."
    )


@router.get("/statements", summary="Statements that can be fetched, oldest first")
def list_statements(
    books: TheBooks, visible: Visible, filters: Annotated[StatementFilters, Query()]
) -> Listing[StatementEntry]:
    """One for each client of each final period, also where nothing is paid."""
    (after,) = place_of(_LIST, filters.cursor, int) or (0,)
    page = written_statements(
        books, visible, period=filters.period, client=filters.client, after=int(after), limit=filters.limit
    )
    return Listing(data=page.rows, next_cursor=cursor_at(_LIST, page.place))


@router.get(
    "/statements/{period}/{client}",
    summary="A signed statement",
    response_class=Response,
    responses={
        200: {
            "description": "The statement, in the format that was asked for.",
            "model": ExplainedStatement | SampledStatement | Statement,
            "content": _CONTENT,
        },
        **failures(404, 503),
    },
)
def statement(
    books: TheBooks,
    visible: Visible,
    period: Annotated[Name, _PERIOD],
    client: Annotated[Name, _CLIENT],
    query: Annotated[StatementForm, Query()],
) -> Response:
    """Canonical JSON (RFC 8785), signed with Ed25519, with the proof that it is under a signed checkpoint of the log.

    `protoken statement verify FILE` checks it offline with the public key alone.
    """
    file = statement_file(issue_statement(books, visible, period, client), query.format)
    return Response(file.content, media_type=file.media_type, headers=file.headers)
