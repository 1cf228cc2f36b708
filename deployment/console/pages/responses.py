"""`/responses`: receipts of responses, one and many, their reversal, and the heat map of a text where it is kept.

Operators, auditors and admins see all of it, an application its own responses, and a member nothing but its own entry:
who is shown what follows from the key.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError

from deployment.access.permissions import READERS
from deployment.books.books import Books
from deployment.books.log import prove_entry
from deployment.books.receipts import booked_receipt, reverse_response
from deployment.console.dependencies import TheBooks
from deployment.console.figures.credits import Credit, credits_of
from deployment.console.figures.heatmap import heat_map, twins
from deployment.console.figures.snapshot import TheFigures
from deployment.console.rendering import TheViewer, Viewer, redirect, render
from deployment.errors import RETRY_AFTER_S, NotFoundError
from deployment.gateway.service import Service, TheService
from deployment.http.cursors import Cursor, cursor_at, place_of
from deployment.retention.texts import Texts
from deployment.schemas.fields import Name
from deployment.schemas.receipts import Receipt, ReversalRequest
from rewards.credit import COMMONS, PENDING
from rewards.errors import LogError
from rewards.ledger.usage import is_of
from rewards.log import proofs
from rewards.store.database import Connection
from rewards.store.reasons import MOST_CHARACTERS
from rewards.store.receipts import BookedEntry, BookedReceipt
from rewards.views import newest_first
from rewards.views.page import Page

router = APIRouter()
_LIST: Final = "console/responses"
_ROWS: Final = 50

ResponseId = Annotated[Name, Path()]


@dataclass(frozen=True)
class Search:
    """What a viewer looks for: a response by its id, or those of a client or an application."""

    response_id: str | None
    client: str | None
    application: str | None


def _search(
    response_id: Annotated[str, Query(alias="id", max_length=200)] = "",
    client: Annotated[str, Query(max_length=200)] = "",
    application: Annotated[str, Query(max_length=200)] = "",
) -> Search:
    return Search(*(given.strip().replace("\0", "") or None for given in (response_id, client, application)))


@router.get("/responses")
def responses(
    request: Request,
    viewer: TheViewer,
    books: TheBooks,
    figures: TheFigures,
    search: Annotated[Search, Depends(_search)],
    cursor: Cursor = None,
) -> Response:
    """The latest receipts that the viewer may see, and the way to one of them by its id."""
    if search.response_id is not None and _is_there(viewer, books, search.response_id):
        return redirect(request, f"/responses/{quote(search.response_id, safe='')}")
    reading = figures.now()
    if reading is None:
        return render(request, "waiting.html")
    place = place_of(_LIST, cursor, int)
    with books.ledger.database.read(member=viewer.key.client) as connection:
        page = _latest_page(connection, viewer, search, None if place is None else (int(place[0]),))
        taken_back = newest_first.reversals(connection, [row.response_id for row in page.rows])
    return render(
        request,
        "responses.html",
        200 if search.response_id is None else 404,
        rows=[(row, _top_client(row)) for row in page.rows],
        taken_back=taken_back,
        asked=search,
        names=reading.names if viewer.key.role in READERS else {},
        is_first=place is None,
        older=cursor_at(_LIST, page.place),
    )


@router.get("/responses/{response_id}")
def response(
    request: Request,
    viewer: TheViewer,
    service: TheService,
    books: TheBooks,
    figures: TheFigures,
    response_id: ResponseId,
) -> Response:
    """One response, as far as the viewer may see it."""
    if viewer.key.role == "member":
        return _render_own_entry(request, viewer, books, response_id)
    if figures.now() is None:
        return render(request, "waiting.html")
    return _render_whole(request, viewer, books, _receipt(viewer, service, books, response_id))


@router.get("/responses/{response_id}/proof")
def proof(
    viewer: TheViewer,
    books: TheBooks,
    response_id: ResponseId,
    client: Annotated[Name | None, Query()] = None,
) -> Response:
    """The proof that a client's entry is in the signed books, as a file for `protoken ledger check-proof`."""
    document = prove_entry(books, viewer.visible, response_id, client)
    name = f"attachment; filename*=UTF-8''{quote(response_id, safe='')}.proof.json"
    return JSONResponse(document.model_dump(), headers={"Content-Disposition": name})


@router.post("/responses/{response_id}/reversal")
def reverse(
    request: Request,
    viewer: TheViewer,
    books: TheBooks,
    response_id: ResponseId,
    reason: Annotated[str, Form()] = "",
    confirmed: Annotated[str, Form()] = "",
) -> Response:
    """Take the credit of a response back, for an operator who said why and confirmed it."""
    try:
        form = ReversalRequest(reason=reason.strip())
    except ValidationError:
        problem = f"Say why, on one line of up to {MOST_CHARACTERS} characters. Nothing was reversed."
        return _render_whole(request, viewer, books, booked_receipt(books, response_id), problem=problem, reason=reason)
    if confirmed != "yes":
        problem = "Tick the box as well: a reversal cannot be taken back. Nothing was reversed."
        return _render_whole(request, viewer, books, booked_receipt(books, response_id), problem=problem, reason=reason)
    reversal = reverse_response(books, response_id, form.reason, viewer.key.key_id).receipt
    told = f"The credit of this response is taken back by {reversal.response_id}."
    return redirect(request, f"/responses/{quote(response_id, safe='')}", told)


def _latest_page(
    connection: Connection, viewer: Viewer, search: Search, place: tuple[int] | None
) -> Page[BookedReceipt] | Page[BookedEntry]:
    """The receipts before a place that the viewer may see; of a member, its own entries."""
    if viewer.key.role == "application":
        return newest_first.receipts(connection, limit=_ROWS, place=place, application=viewer.key.identity)
    if viewer.visible is not None:
        return newest_first.entries(connection, viewer.visible, limit=_ROWS, place=place)
    return newest_first.receipts(
        connection, limit=_ROWS, place=place, application=search.application, account=search.client
    )


def _is_there(viewer: Viewer, books: Books, response_id: str) -> bool:
    """Whether there is such a response for the viewer."""
    if viewer.key.role == "member":
        return _entry(viewer, books, response_id) is not None
    row = books.ledger.receipt(response_id)
    return row is not None and _may_see(viewer, books, row.application)


def _may_see(viewer: Viewer, books: Books, application: str) -> bool:
    """Whether the viewer may see all of a response that this application asked for."""
    if viewer.key.role == "application":
        return is_of(books.ledger.database, viewer.key.identity, application)
    return viewer.key.role in READERS


def _receipt(viewer: Viewer, service: Service, books: Books, response_id: str) -> Receipt:
    """A receipt that the viewer may see; to an application those of others do not exist."""
    row = books.ledger.receipt(response_id)
    if row is not None and _may_see(viewer, books, row.application):
        return Receipt.model_validate(row)
    if service.answers.is_promised(response_id, viewer.key.identity):
        raise NotFoundError(
            "this response is safe on disk, and its credit on its way to the ledger; look again in a moment",
            code="response_not_booked_yet",
            retry_after_s=RETRY_AFTER_S,
        )
    raise NotFoundError(f"there is no response {response_id} here", code="response_not_found")


def _render_whole(
    request: Request, viewer: Viewer, books: Books, receipt: Receipt, *, problem: str | None = None, reason: str = ""
) -> Response:
    """The page of a response for somebody who may see all of it."""
    texts: Texts | None = request.app.state.texts
    kept = None if texts is None else texts.find(receipt.response_id)
    if kept is not None and kept.application != receipt.application:
        kept = None  # of another ledger that has the same folder
    with books.ledger.database.read() as connection:
        taken_back = newest_first.reversals(connection, [receipt.response_id]).get(receipt.response_id)
        sealed = _log_place(connection, receipt.sequence)
    return render(
        request,
        "response.html",
        200 if problem is None else 400,
        receipt=receipt,
        credits=credits_of(receipt.amounts, receipt.tokens),
        taken_back=taken_back,
        sealed=sealed,
        kept=kept,
        map=heat_map(kept.tokens if kept is not None else ()),
        twins=twins(request.app.state.figures.names()),
        texts=texts,
        may_reverse=viewer.key.role == "operator" and receipt.kind == "response" and taken_back is None,
        is_reader=viewer.key.role in READERS,
        problem=problem,
        reason=reason,
    )


def _render_own_entry(request: Request, viewer: Viewer, books: Books, response_id: str) -> Response:
    """The page of a response for a member: what it earned of it, and nothing else."""
    entry = _entry(viewer, books, response_id)
    if entry is None:
        raise NotFoundError(f"there is no response {response_id} here", code="response_not_found")
    with books.ledger.database.read(member=viewer.visible) as connection:
        taken_back = newest_first.reversals(connection, [response_id]).get(response_id)
        sealed = _log_place(connection, entry.sequence)
    (own,) = credits_of({entry.account: entry.amount}, entry.tokens)
    return render(request, "own_response.html", entry=entry, own=own, taken_back=taken_back, sealed=sealed)


def _entry(viewer: Viewer, books: Books, response_id: str) -> BookedEntry | None:
    """A member's own entry of a response; None where it has none."""
    assert viewer.visible is not None, "only a member has entries of its own"
    with books.ledger.database.read(member=viewer.visible) as connection:
        rows = newest_first.entries(connection, viewer.visible, limit=1, response_id=response_id).rows
    return rows[0] if rows else None


def _log_place(connection: Connection, sequence: int) -> Mapping[str, Any] | None:
    """Where a receipt is in the signed log; None while it waits to be sealed."""
    try:
        return proofs.inclusion(connection, "receipt", sequence)
    except LogError:
        return None


def _top_client(row: BookedReceipt | BookedEntry) -> Credit | None:
    """The client that earned most of a receipt, None where no client earned; of a member's row its own entry."""
    if isinstance(row, BookedEntry):
        return credits_of({row.account: row.amount}, row.tokens)[0]
    first = credits_of(row.amounts, row.tokens)[0]
    return first if first.account not in (COMMONS, PENDING) and first.share > 0 else None
