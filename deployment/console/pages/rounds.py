"""`/rounds`: which round of training is served since when, and who contributed what to it; a member sees its own part.

Which bundle is served the ledger says; what it records, its folder, which may be gone.
"""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from deployment.books.rounds import list_publications, read_rounds
from deployment.books.settlement_table import names_in
from deployment.console.dependencies import TheBooks
from deployment.console.rendering import TheViewer, render
from deployment.schemas.fields import Count
from deployment.schemas.rounds import Publication, RoundRecord

router = APIRouter()

_ROUNDS: Final = 10
_DEFENCES: Final = {
    "clip_to_median": "Updates cut to the median norm of their round",
    "cap_counts": "Declared examples cut to this multiple of the median",
    "drop_duplicates": "Updates left out that are as alike as this cosine",
}


@router.get("/rounds")
def rounds_page(
    request: Request,
    viewer: TheViewer,
    books: TheBooks,
    publication: Annotated[Count | None, Query()] = None,
    before: Annotated[Count | None, Query()] = None,
) -> HTMLResponse:
    """Every publication, the last first, and the rounds of one of them: the one that is served, where none is named."""
    listed = list_publications(books, viewer.visible)[::-1]
    chosen = _served_id(listed) if publication is None else publication
    record = None if chosen is None else read_rounds(books, viewer.visible, chosen, before=before, limit=_ROUNDS)
    return render(
        request,
        "rounds.html",
        publications=listed,
        record=record,
        before=before,
        longest=1.0 if record is None else _longest(record),
        defences=[] if record is None else _defences(record),
        names=names_in(books.ledger) if viewer.visible is None else {},
    )


def _served_id(listed: list[Publication]) -> int | None:
    return next((each.id for each in listed if each.served_since_us is not None), None)


def _longest(record: RoundRecord) -> float:
    """The largest norm that is drawn."""
    norms = [update.norm for each in record.rounds for update in each.updates]
    return max([*norms, *(each.residual_norm for each in record.rounds)], default=0.0) or 1.0


def _defences(record: RoundRecord) -> list[tuple[str, str]]:
    """What the aggregator did against hostile members, in words, and how far."""
    written = []
    for name, value in (record.defences or {}).items():
        setting = f"{value:g}" if isinstance(value, float) else "on" if value else "off"
        written.append((_DEFENCES.get(name, name), setting))
    return written
