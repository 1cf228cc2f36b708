"""`/keys`: bearer keys made, listed, rotated and revoked. A secret is told once, and nobody on the way may keep it."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from deployment.api.dependencies import Caller, TheBooks
from deployment.api.paging import Listing, Paging, first_of
from deployment.books.books import Books
from deployment.errors import ConflictError, NotFoundError
from deployment.http.cursors import place_of
from deployment.schemas.errors import failures
from deployment.schemas.fields import Name
from deployment.schemas.keys import BearerKey, NewKey, NewKeyRequest, Rotation
from rewards.errors import KeyRingError
from rewards.keys.rules import Key
from rewards.store.database import now_us

router = APIRouter(tags=["keys"])
_LIST = "keys"
_AS_USUAL = Rotation()

KeyId = Annotated[Name, Path(description="The middle part of ptk_<key id>_<secret>.")]


class KeyFilters(Paging):
    """Which keys are meant, and which page of them."""

    client: Name | None = Field(None, description="Keys of this member alone.")


@router.get("/keys", summary="Keys, oldest first")
def keys(books: TheBooks, filters: Annotated[KeyFilters, Query()]) -> Listing[BearerKey]:
    """Every key there ever was, without its secret."""
    place = place_of(_LIST, filters.cursor, int, str) or (0, "")
    rest = [
        key
        for key in books.keys.list()
        if (key.created_at_us, key.key_id) > place and filters.client in (None, key.client)
    ]
    shown, cursor = first_of(_LIST, rest, filters.limit, lambda key: (key.created_at_us, key.key_id))
    return Listing(data=[BearerKey.model_validate(_fields(key)) for key in shown], next_cursor=cursor)


@router.get("/keys/{key_id}", summary="One key", responses=failures(404))
def key(books: TheBooks, key_id: KeyId) -> BearerKey:
    """A key as it stands, without its secret."""
    return BearerKey.model_validate(_fields(_find(books, key_id)))


@router.post("/keys", summary="Make a key", status_code=201)
def create(books: TheBooks, caller: Caller, response: Response, request: NewKeyRequest) -> NewKey:
    """Make a key and tell its secret, this once: only a hash of it is kept."""
    made = books.keys.create(
        request.role,
        request.label,
        actor=caller.key_id,
        client=request.client,
        expires_at_us=request.expires_at_us,
        token_budget=request.token_budget,
        requests_per_minute=request.requests_per_minute,
        concurrency=request.concurrency,
        weight=request.weight,
    )
    return _answer_with_secret(books, response, made)


@router.post("/keys/{key_id}/rotate", summary="Replace a key", status_code=201, responses=failures(404, 409))
def rotate(books: TheBooks, caller: Caller, response: Response, key_id: KeyId, request: Rotation = _AS_USUAL) -> NewKey:
    """Make a key of the same role, label, client and limits, and tell its secret; the old one works a little longer."""
    _find(books, key_id)
    try:
        made = books.keys.rotate(key_id, actor=caller.key_id, overlap_s=request.overlap_s)
    except KeyRingError as error:
        raise ConflictError(str(error), param="key_id", code="not_rotatable") from error
    return _answer_with_secret(books, response, made)


@router.delete("/keys/{key_id}", summary="Revoke a key", responses=failures(404))
def revoke(books: TheBooks, caller: Caller, key_id: KeyId) -> BearerKey:
    """Refuse a key from now on; this service does so within seconds. Again changes nothing."""
    _find(books, key_id)
    books.keys.revoke(key_id, actor=caller.key_id)
    return BearerKey.model_validate(_fields(_find(books, key_id)))


def _find(books: Books, key_id: str) -> Key:
    for each in books.keys.list():
        if each.key_id == key_id:
            return each
    raise NotFoundError(f"there is no key {key_id!r}", param="key_id", code="key_not_found")


def _answer_with_secret(books: Books, response: Response, made: str) -> NewKey:
    response.headers["Cache-Control"] = "no-store"
    return NewKey.model_validate({**_fields(_find(books, made.split("_")[1])), "key": made})


def _fields(key: Key) -> dict[str, object]:
    return {
        **{name: value for name, value in vars(key).items() if name != "key_id"},
        "id": key.key_id,
        "state": key.state(now_us()),
    }
