"""`/exports`: entries for spreadsheets, receipts as events for metering. Reads only, page by page in flat memory.

An export ends with what was booked when it was asked for. Its first page is read before the answer begins, so that a
ledger which is away is a refusal and not half a file.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from deployment.api.dependencies import TheBooks
from deployment.api.filters import Filters, narrow
from deployment.books.books import Books
from deployment.schemas.errors import Answers, failures
from deployment.schemas.receipts import Receipt
from rewards.files.plain_text import json_line
from rewards.files.spreadsheet_cells import cell
from rewards.moments import date_of
from rewards.store.database import Connection
from rewards.store.receipts import BookedEntry, BookedReceipt
from rewards.views import oldest_first
from rewards.views.page import Page

router = APIRouter(tags=["exports"])
PAGE_ROWS = 1000
_COLUMNS = (
    "sequence",
    "booked_at",
    "booked_at_us",
    "created_at_us",
    "response_id",
    "kind",
    "reverses",
    "consortium",
    "model_sha256",
    "application",
    "tokens",
    "account",
    "credit",
)
_HEADER = ",".join(_COLUMNS) + "\r\n"

Item = TypeVar("Item")
Read = Callable[[Connection, Any], Page[Item]]


def _file(media_type: str, example: str) -> Answers:
    """What an export declares as its answers."""
    content = {media_type: {"schema": {"type": "string"}, "example": example}}
    return {200: {"description": "The file, streamed.", "content": content}, **failures(404)}


@router.get(
    "/exports/entries.csv",
    summary="Entries as CSV",
    response_class=StreamingResponse,
    responses=_file("text/csv", _HEADER),
)
def entries(books: TheBooks, filters: Annotated[Filters, Query()]) -> StreamingResponse:
    """Each account's credit of each receipt, in the order of booking, under a line of names.

    A text that a spreadsheet would take for a formula has an apostrophe before it. A reversal is in the export of the
    one period that settles it: beside the response that it reverses, or without that, where it takes back from an
    earlier period in money; then its credit is no part of the period's.
    """
    wanted = narrow(books, None, filters, with_clawbacks=True)

    def read(connection: Connection, place: Any) -> Page[BookedEntry]:
        return oldest_first.entries(connection, wanted.selection, limit=PAGE_ROWS, place=place, account=wanted.account)

    pages = (_csv(page) for page in _pages(books, read))
    return _stream(chain([_HEADER], pages), "text/csv", "entries.csv")


@router.get(
    "/exports/receipts.jsonl",
    summary="Receipts as CloudEvents",
    response_class=StreamingResponse,
    responses=_file("application/x-ndjson", '{"specversion":"1.0","type":"protoken.receipt.v1","id":"cmpl-7"}\n'),
)
def receipts(books: TheBooks, filters: Annotated[Filters, Query()]) -> StreamingResponse:
    """One CloudEvents 1.0 event in JSON a line, one for each receipt, in the order of booking.

    `id` is the response's id, `source` its consortium, `subject` the key that asked, `time` when it was booked, and
    `data` the receipt, its tokens and micro-credits as decimal text. A meter that sums `data.tokens` by subject counts
    what to bill; reversals are negative, and each is in the export of the one period that settles it.
    """
    wanted = narrow(books, None, filters, with_clawbacks=True)

    def read(connection: Connection, place: Any) -> Page[BookedReceipt]:
        return oldest_first.receipts(connection, wanted.selection, limit=PAGE_ROWS, place=place, account=wanted.account)

    pages = ("".join(map(_event, page)) for page in _pages(books, read))
    return _stream(pages, "application/x-ndjson", "receipts.jsonl")


def _pages(books: Books, read: Read[Item]) -> Iterator[Sequence[Item]]:
    """Every page, each read in a transaction of its own when it is wanted; but the first is read here."""
    with books.ledger.database.read() as connection:
        first = read(connection, None)
    return chain([first.rows], _further_pages(books, read, first.place))


def _further_pages(books: Books, read: Read[Item], place: Any) -> Iterator[Sequence[Item]]:
    while place is not None:
        with books.ledger.database.read() as connection:
            page = read(connection, place)
        place = page.place
        yield page.rows


def _stream(parts: Iterable[str], media_type: str, name: str) -> StreamingResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(parts, media_type=media_type, headers=headers)


def _csv(entries: Sequence[BookedEntry]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    for entry in entries:
        told = {**vars(entry), "booked_at": _rfc3339(entry.booked_at_us), "credit": entry.amount}
        writer.writerow(cell(told[name]) for name in _COLUMNS)
    return text.getvalue()


def _event(receipt: BookedReceipt) -> str:
    """A line of JSON: the receipt as a CloudEvent in structured mode."""
    event = {
        "specversion": "1.0",
        "type": "protoken.receipt.v1",
        "id": receipt.response_id,
        "source": f"/consortia/{quote(receipt.consortium, safe='')}",
        "subject": receipt.application,
        "time": _rfc3339(receipt.booked_at_us),
        "datacontenttype": "application/json",
        "data": Receipt.model_validate(receipt).model_dump(mode="json", exclude={"object"}),
    }
    return json_line(json.dumps(event, ensure_ascii=False, separators=(",", ":"))) + "\n"


def _rfc3339(moment_us: int) -> str:
    return f"{date_of(moment_us):%Y-%m-%dT%H:%M:%S.%fZ}"
