"""`/statements`: what each client is told of a final period, signed; as JSON, as CSV, and as a page to print."""

from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from deployment.api.dependencies import TheBooks, Visible
from deployment.api.paging import Listing, Paging, cursor_at, place_of
from deployment.books import statement_page
from deployment.errors import NotFoundError, UnavailableError
from deployment.schemas.errors import failures
from deployment.schemas.fields import Name
from deployment.schemas.statements import Statement, StatementEntry
from rewards import statements
from rewards.credit import canonical_bytes
from rewards.errors import StatementError
from rewards.files.strict_json import JsonObject

__all__ = ["router"]

router = APIRouter(tags=["statements"])
_LIST = "statements"
RETRY_AFTER_S = 10  # by then the log is sealed again, if nobody set another interval

_PERIOD = Path(description="The name of a final period.")
_CLIENT = Path(description="The client's id; a member's key sees its own alone.")
_MEDIA = {"json": "application/json", "csv": "text/csv", "html": "text/html"}
_TEXTS = {
    "text/csv": "line,minor units,amount in EUR\ngross,500000,5000.00\n",
    "text/html": '<!DOCTYPE html>\n<html lang="en">…</html>\n',
}
_CONTENT = {media: {"schema": {"type": "string"}, "example": text} for media, text in _TEXTS.items()}
# The page carries its own style and nothing else; a browser is told so, and not to guess another type.
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


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
    books: TheBooks, visible: Visible, asked: Annotated[StatementFilters, Query()]
) -> Listing[StatementEntry]:
    """One for each client of each final period, also where nothing is paid."""
    (after,) = place_of(_LIST, asked.cursor, int) or (0,)
    if visible is not None and asked.client not in (None, visible):
        return Listing(data=[], next_cursor=None)
    with books.ledger.database.read(member=visible) as connection:
        found = statements.written(
            connection,
            period=asked.period,
            client=visible or asked.client,
            after=int(after),
            limit=asked.limit + 1,
        )
    shown = found[: asked.limit]
    fields = StatementEntry.model_fields.keys() - {"object", "payout", "written_at_us"}
    return Listing(
        data=[
            StatementEntry(
                written_at_us=event.at_us,
                payout=event.document["money"]["payout"],
                **{name: event.document[name] for name in fields},
            )
            for event in shown
        ],
        next_cursor=cursor_at(_LIST, (shown[-1].sequence,) if len(found) > asked.limit else None),
    )


@router.get(
    "/statements/{period}/{client}",
    summary="A signed statement",
    response_class=Response,
    responses={
        200: {
            "description": "The statement, in the format that was asked for.",
            "model": Statement,
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
    asked: Annotated[StatementForm, Query()],
) -> Response:
    """Canonical JSON (RFC 8785), signed with Ed25519, with the proof that it is under a signed checkpoint of the log.

    `protoken statement verify FILE` checks it offline with the public key alone.
    """
    signer = books.signer()
    with books.ledger.database.read(member=visible) as connection:
        if visible not in (None, client) or not statements.written(connection, period=period, client=client, limit=1):
            raise NotFoundError(
                f"there is no statement of period {period!r} for client {client!r}: they are written when a period "
                "becomes final",
                param="client",
                code="statement_not_found",
            )
        if signer is None:
            raise UnavailableError("this service has no signing key to sign with", code="signing_key_unavailable")
        try:
            document = statements.issue(connection, period, client, signer)
        except StatementError as error:
            raise UnavailableError(str(error), code="not_sealed_yet", retry_after_s=RETRY_AFTER_S) from error
    return _answer(document, asked.format)


def _answer(document: JsonObject, form: str) -> Response:
    media = _MEDIA[form]
    name = quote(f"statement-{document['period']}-{document['client']}.{form}", safe="")
    headers = {
        "Content-Disposition": f"{'inline' if form == 'html' else 'attachment'}; filename*=UTF-8''{name}",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    if form == "json":
        return Response(canonical_bytes(document), media_type=media, headers=headers)
    if form == "csv":
        return Response(statement_page.table(document), media_type=media, headers=headers)
    return Response(
        statement_page.page(document), media_type=media, headers=headers | {"Content-Security-Policy": _PAGE_POLICY}
    )
