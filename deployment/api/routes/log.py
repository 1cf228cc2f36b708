"""`/log`: the Merkle log of the books, its signed checkpoints, and proofs that anybody can check offline."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from deployment.api.dependencies import TheBooks, Visible
from deployment.api.paging import Listing, Paging, cursor_at, place_of
from deployment.books.books import Books
from deployment.errors import InvalidRequestError, NotFoundError, UnavailableError
from deployment.health.places import log_origin
from deployment.schemas.errors import failures
from deployment.schemas.fields import LARGEST, Name
from deployment.schemas.log import Checkpoint, Consistency, Inclusion, ReceiptProof, VerifyKey
from rewards.errors import LogError
from rewards.log import proofs, sealing
from rewards.store.database import Connection
from rewards.views import ownership

__all__ = ["router"]

router = APIRouter(tags=["log"])
_KEYS = "log/keys"
Proof = TypeVar("Proof")

Size = Annotated[int, Field(ge=1, le=LARGEST)]


class _Asked(BaseModel):
    """A query; a parameter that it does not have is refused."""

    model_config = ConfigDict(extra="forbid")


class OfCheckpoint(_Asked):
    """Which checkpoint is meant."""

    size: Size | None = Field(None, description="Of the checkpoint; the latest without it.")


class OfLeaf(OfCheckpoint):
    """Which leaf is to be proved, and against which checkpoint."""

    source: Literal["receipt", "event"] = Field(description="Which of the two it is.")
    sequence: Annotated[int, Field(ge=1, le=LARGEST)] = Field(description="Its number.")


class OfGrowth(_Asked):
    """Between which two checkpoints."""

    first: Size = Field(description="The size of the checkpoint that you hold.")
    second: Size | None = Field(None, description="The size of a newer one; the latest without it.")


class OfEntry(_Asked):
    """Whose entry of a response."""

    client: Name | None = Field(None, description="Whose entry; a member's key proves its own.")


@router.get("/log/checkpoint", summary="A signed checkpoint", responses=failures(404))
def checkpoint(books: TheBooks, asked: Annotated[OfCheckpoint, Query()]) -> Checkpoint:
    """The latest signed root of the log, or the one of a size. Keep the note: it shows if history is ever rewritten."""
    return _checkpoint(books, asked.size)


@router.get("/log/keys", summary="The public keys that the books name, oldest first")
def keys(books: TheBooks, asked: Annotated[Paging, Query()]) -> Listing[VerifyKey]:
    """Every key that ever signed for the ledger. Compare them with what you got from elsewhere."""
    (after,) = place_of(_KEYS, asked.cursor, int) or (0,)
    with books.ledger.database.read() as connection:
        rest = sealing.verify_keys(connection)[int(after) :]
    shown = rest[: asked.limit]
    return Listing(
        data=[VerifyKey(name=key.name, key_id=key.key_id, public=key.encode()) for key in shown],
        next_cursor=cursor_at(_KEYS, (int(after) + len(shown),) if len(rest) > asked.limit else None),
    )


@router.get("/log/inclusion", summary="That a receipt or event is in the log", responses=failures(404))
def inclusion(books: TheBooks, visible: Visible, asked: Annotated[OfLeaf, Query()]) -> Inclusion:
    """The path from its leaf to a signed root.

    A member's key is answered for receipts that have an entry of its client, and for its own statements.
    """
    with books.ledger.database.read(member=visible) as connection:
        if visible is not None and not ownership.owns(connection, asked.source, asked.sequence, visible):
            raise NotFoundError(
                f"{asked.source} {asked.sequence} is not in the log", param="sequence", code="not_in_log"
            )
        return Inclusion.model_validate(_proof(proofs.inclusion, connection, asked.source, asked.sequence, asked.size))


@router.get("/log/consistency", summary="That history was only added to", responses=failures(404))
def consistency(books: TheBooks, asked: Annotated[OfGrowth, Query()]) -> Consistency:
    """The proof that a newer checkpoint extends an older one; `protoken ledger check-proof --checkpoint` checks it."""
    if asked.second is not None and asked.second < asked.first:
        raise InvalidRequestError(
            f"second must be at least first ({asked.first}), not {asked.second}: a log only grows",
            param="second",
            code="invalid_value",
        )
    with books.ledger.database.read() as connection:
        return Consistency.model_validate(_proof(proofs.consistency, connection, asked.first, asked.second))


@router.get("/log/proof/{response_id}", summary="That an entry is in the signed books", responses=failures(404))
def receipt_proof(
    books: TheBooks,
    visible: Visible,
    response_id: Annotated[Name, Path(description="Of a response, or of a reversal.")],
    asked: Annotated[OfEntry, Query()],
) -> ReceiptProof:
    """A client's entry of a response, opened against the signed log. It tells nothing of other clients' entries."""
    account = visible or asked.client
    if account is None:
        raise InvalidRequestError(
            "client is missing: whose entry is to be proved?", param="client", code="missing_required_parameter"
        )
    with books.ledger.database.read() as connection:
        if asked.client in (None, account) and ownership.has_entry(connection, response_id, account):
            return ReceiptProof.model_validate(_proof(proofs.receipt_proof, connection, response_id, account))
    raise NotFoundError(
        f"client {asked.client or account!r} has no entry in a receipt {response_id!r}",
        param="response_id",
        code="entry_not_found",
    )


@router.post("/log/seal", summary="Seal what is new", responses=failures(404, 503))
def seal(books: TheBooks) -> Checkpoint:
    """Put what is new into the log and sign a checkpoint, as the service does by itself every few seconds."""
    signer = books.signer()
    if signer is None:
        raise UnavailableError("this service has no signing key to sign with", code="signing_key_unavailable")
    sealing.seal(books.ledger, signer, log_origin(books.ledger, signer))
    return _checkpoint(books, None)


def _checkpoint(books: Books, size: int | None) -> Checkpoint:
    with books.ledger.database.read() as connection:
        found = sealing.checkpoint_at(connection, size)
    if found is None:
        which = "" if size is None else f" of size {size}"
        raise NotFoundError(f"there is no checkpoint{which}", param="size", code="checkpoint_not_found")
    return Checkpoint(
        origin=found.origin,
        size=found.size,
        root=found.root,
        key_id=found.key_id,
        sealed_at_us=found.sealed_at_us,
        note=found.note,
    )


def _proof(prove: Callable[..., Proof], connection: Connection, *asked: Any) -> Proof:
    """A proof; one that there cannot be, or not yet, is 404 with the reason."""
    try:
        return prove(connection, *asked)
    except LogError as error:
        raise NotFoundError(str(error), code="not_in_log") from error
