"""`/clients`: the member organisations and the credit that each ever got. Reads only."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from deployment.api.dependencies import TheBooks, Visible
from deployment.api.paging import Listing, Paging, first_of
from deployment.books.books import Books
from deployment.errors import NotFoundError
from deployment.http.cursors import place_of
from deployment.schemas.credit import Client
from deployment.schemas.errors import failures
from deployment.schemas.fields import Name
from rewards.views.selection import Selection, totals

router = APIRouter(tags=["consortium"])
_LIST = "clients"


@router.get("/clients", summary="The clients and their credit")
def clients(books: TheBooks, visible: Visible, paging: Annotated[Paging, Query()]) -> Listing[Client]:
    """Every client by id, with all the credit that it ever got. A member's key sees itself alone."""
    place = place_of(_LIST, paging.cursor, str)
    by_id = sorted(_clients(books, visible), key=lambda client: client.id)
    rest = [client for client in by_id if place is None or client.id > str(place[0])]
    shown, cursor = first_of(_LIST, rest, paging.limit, lambda client: (client.id,))
    return Listing(data=shown, next_cursor=cursor)


@router.get("/clients/{client}", summary="One client and its credit", responses=failures(404))
def client(books: TheBooks, visible: Visible, client: Annotated[Name, Path()]) -> Client:
    """One client, with all the credit that it ever got. For a member's key there is no other than its own."""
    for each in _clients(books, visible):
        if each.id == client:
            return each
    raise NotFoundError(f"there is no client {client!r} here", param="client", code="client_not_found")


def _clients(books: Books, visible: str | None) -> list[Client]:
    """The clients that a caller may see, in the order of registration."""
    names: dict[str, str] = {}
    consortia: dict[str, list[str]] = {}
    for consortium, members in books.ledger.clients().items():
        for client_id, name in members.items():
            if visible in (None, client_id):
                names.setdefault(client_id, name)
                consortia.setdefault(client_id, []).append(consortium)
    with books.ledger.database.read(member=visible) as connection:
        credit = totals(connection, Selection(), visible).credit
    return [
        Client(id=client_id, name=name, consortia=consortia[client_id], credit=credit.get(client_id, 0))
        for client_id, name in names.items()
    ]
