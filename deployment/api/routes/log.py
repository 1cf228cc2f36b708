"""`/log`: the Merkle log of the books, its signed checkpoints, and proofs that anybody can check offline.

And what the log holds for everybody: how right the shares are, as somebody measured it.
"""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from deployment.api.dependencies import TheBooks, Visible
from deployment.api.paging import Listing, Paging, first_of
from deployment.books.calibrations import list_calibrations
from deployment.books.log import (
    prove_consistency,
    prove_entry,
    prove_inclusion,
    seal_log,
    signed_checkpoint,
    verify_keys,
)
from deployment.http.cursors import place_of
from deployment.schemas.calibrations import Calibration
from deployment.schemas.errors import failures
from deployment.schemas.fields import LARGEST, Name
from deployment.schemas.log import Checkpoint, Consistency, Inclusion, ReceiptProof, Size, VerifyKey

router = APIRouter(tags=["log"])
_KEYS, _CALIBRATIONS = "log/keys", "log/calibrations"


class _Query(BaseModel):
    """A query; a parameter that it does not have is refused."""

    model_config = ConfigDict(extra="forbid")


class OfCheckpoint(_Query):
    """Which checkpoint is meant."""

    size: Size | None = Field(None, description="Of the checkpoint; the latest without it.")


class OfLeaf(OfCheckpoint):
    """Which leaf is to be proved, and against which checkpoint."""

    source: Literal["receipt", "event"] = Field(description="Which of the two it is.")
    sequence: Annotated[int, Field(ge=1, le=LARGEST)] = Field(description="Its number.")


class OfGrowth(_Query):
    """Between which two checkpoints."""

    first: Size = Field(description="The size of the checkpoint that you hold.")
    second: Size | None = Field(None, description="The size of a newer one; the latest without it.")


class CalibrationFilters(Paging):
    """Which calibrations are meant, and which page of them."""

    consortium: Name | None = Field(None, description="Of this consortium alone.")


class OfEntry(_Query):
    """Whose entry of a response."""

    client: Name | None = Field(None, description="Whose entry; a member's key proves its own.")


@router.get("/log/checkpoint", summary="A signed checkpoint", responses=failures(404))
def checkpoint(books: TheBooks, query: Annotated[OfCheckpoint, Query()]) -> Checkpoint:
    """The latest signed root of the log, or the one of a size. Keep the note: it shows if history is ever rewritten."""
    return signed_checkpoint(books, query.size)


@router.get("/log/keys", summary="The public keys that the books name, oldest first")
def keys(books: TheBooks, paging: Annotated[Paging, Query()]) -> Listing[VerifyKey]:
    """Every key that ever signed for the ledger. Compare them with what you got from elsewhere."""
    (after,) = place_of(_KEYS, paging.cursor, int) or (0,)
    rest = [(number, key) for number, key in enumerate(verify_keys(books), start=1) if number > int(after)]
    shown, cursor = first_of(_KEYS, rest, paging.limit, lambda numbered: (numbered[0],))
    return Listing(data=[key for _, key in shown], next_cursor=cursor)


@router.get("/log/calibrations", summary="How right the shares are, oldest first")
def calibrations(
    books: TheBooks, visible: Visible, filters: Annotated[CalibrationFilters, Query()]
) -> Listing[Calibration]:
    """The latest calibration of each model: how far what `credit` pays is from Shapley values of the same updates.

    A member sees those of its consortia. That one is in the log `/log/inclusion` proves, by its `sequence`.
    """
    (after,) = place_of(_CALIBRATIONS, filters.cursor, int) or (0,)
    rest = [each for each in list_calibrations(books, visible, filters.consortium) if each.sequence > int(after)]
    shown, cursor = first_of(_CALIBRATIONS, rest, filters.limit, lambda calibration: (calibration.sequence,))
    return Listing(data=list(shown), next_cursor=cursor)


@router.get("/log/inclusion", summary="That a receipt or event is in the log", responses=failures(404))
def inclusion(books: TheBooks, visible: Visible, query: Annotated[OfLeaf, Query()]) -> Inclusion:
    """The path from its leaf to a signed root.

    A member's key is answered for receipts that have an entry of its client, for its own statements, and for the
    calibrations of its consortia.
    """
    return prove_inclusion(books, visible, query.source, query.sequence, query.size)


@router.get("/log/consistency", summary="That history was only added to", responses=failures(404))
def consistency(books: TheBooks, query: Annotated[OfGrowth, Query()]) -> Consistency:
    """The proof that a newer checkpoint extends an older one; `protoken ledger check-proof --checkpoint` checks it."""
    return prove_consistency(books, query.first, query.second)


@router.get("/log/proof/{response_id}", summary="That an entry is in the signed books", responses=failures(404))
def receipt_proof(
    books: TheBooks,
    visible: Visible,
    response_id: Annotated[Name, Path(description="Of a response, or of a reversal.")],
    query: Annotated[OfEntry, Query()],
) -> ReceiptProof:
    """A client's entry of a response, opened against the signed log. It tells nothing of other clients' entries."""
    return prove_entry(books, visible, response_id, query.client)


@router.post("/log/seal", summary="Seal what is new", responses=failures(404, 503))
def seal(books: TheBooks) -> Checkpoint:
    """Put what is new into the log and sign a checkpoint, as the service does by itself every few seconds."""
    return seal_log(books)
