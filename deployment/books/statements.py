"""Statements as they are listed, issued and given out: as JSON, as CSV, and as a page to print."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from deployment.books import statement_page
from deployment.books.books import Books
from deployment.errors import NotFoundError, UnavailableError
from deployment.schemas.statements import StatementEntry
from rewards import statements
from rewards.credit import canonical_bytes
from rewards.errors import StatementError
from rewards.files.strict_json import JsonObject
from rewards.store.events import Event
from rewards.views.page import Page

FORMATS = ("json", "csv", "html")
"""As what a statement is given out: `json` is what is signed, `csv` its money, `html` a page to print."""
RETRY_AFTER_S = 10  # by then the log is sealed again, if nobody set another interval

# The page carries its own style and nothing else; a browser is told so, and not to guess another type.
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_OF_EVENT = StatementEntry.model_fields.keys() - {"object", "payout", "written_at_us"}


@dataclass(frozen=True)
class StatementFile:
    """A statement as it is given out: its bytes, what they are, and what a browser must be told beside that."""

    content: bytes
    media_type: str
    headers: Mapping[str, str]


def written_statements(
    books: Books,
    visible: str | None,
    *,
    period: str | None = None,
    client: str | None = None,
    after: int = 0,
    limit: int,
) -> Page[StatementEntry]:
    """A page of the statements that can be issued, oldest first.

    Args:
        books: where they are.
        visible: the only client whose statements may be told of; None is everybody's.
        period: of this period alone.
        client: of this client alone.
        after: the place of the page before.
        limit: how many at most.
    """
    if visible is not None and client not in (None, visible):
        return Page([], None)
    with books.ledger.database.read(member=visible) as connection:
        written = statements.find_statements(
            connection, period=period, client=visible or client, after=after, limit=limit + 1
        )
    entries = [_entry(event) for event in written[:limit]]
    return Page(entries, (written[limit - 1].sequence,) if len(written) > limit else None)


def issue_statement(books: Books, visible: str | None, period: str, client: str) -> JsonObject:
    """A client's statement of a final period, signed, with the proof that it is under a signed checkpoint of the log.

    Raises:
        NotFoundError: there is none, or none for whoever may see `visible` alone.
        UnavailableError: this service has no key to sign with, or the statement is not in the log yet.
        SignatureError: the signing key cannot be used.
    """
    signer = books.signer()
    with books.ledger.database.read(member=visible) as connection:
        clients = statements.clients(connection, period)  # of a member, perhaps no more than itself
        if visible not in (None, client) or client not in clients:
            is_final = bool(clients)
            why = "" if is_final else ": they are written when a period becomes final"
            raise NotFoundError(
                f"there is no statement of period {period!r} for client {client!r}{why}",
                param="client" if is_final or visible is not None else "period",
                code="statement_not_found",
            )
        if signer is None:
            raise UnavailableError("this service has no signing key to sign with", code="signing_key_unavailable")
        try:
            return statements.issue(connection, period, client, signer)
        except StatementError as error:
            raise UnavailableError(str(error), code="not_sealed_yet", retry_after_s=RETRY_AFTER_S) from error


def statement_file(document: JsonObject, form: str) -> StatementFile:
    """A statement in one of FORMATS, the JSON of it canonical (RFC 8785)."""
    name = quote(f"statement-{document['period']}-{document['client']}.{form}", safe="")
    headers = {
        "Content-Disposition": f"{'inline' if form == 'html' else 'attachment'}; filename*=UTF-8''{name}",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    match form:
        case "json":
            return StatementFile(canonical_bytes(document), "application/json", headers)
        case "csv":
            return StatementFile(statement_page.table(document).encode(), "text/csv", headers)
        case "html":
            policy = {"Content-Security-Policy": _PAGE_POLICY}
            return StatementFile(statement_page.page(document).encode(), "text/html", headers | policy)
    raise AssertionError(f"{form!r} is none of {FORMATS}")


def _entry(event: Event) -> StatementEntry:
    return StatementEntry(
        written_at_us=event.at_us,
        payout=event.document["money"]["payout"],
        **{name: event.document[name] for name in _OF_EVENT},
    )
