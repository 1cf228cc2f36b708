"""The signed Merkle log of the books: its checkpoints, its keys, and proofs for whoever may see what they prove."""

from collections.abc import Callable
from typing import TypeVar

from deployment.books.books import Books
from deployment.books.calibrations import list_calibrations
from deployment.errors import InvalidRequestError, NotFoundError, UnavailableError
from deployment.schemas.log import Checkpoint, Consistency, Inclusion, ReceiptProof, VerifyKey
from rewards.errors import LogError
from rewards.log import checkpoints, proofs, sealer
from rewards.views import ownership

Proof = TypeVar("Proof")


def latest_checkpoint(books: Books) -> Checkpoint | None:
    """The latest signed root of the log; None before the first."""
    return _checkpoint_at(books, None)


def signed_checkpoint(books: Books, size: int | None) -> Checkpoint:
    """The signed root of the log of a size; the latest where `size` is None.

    Raises:
        NotFoundError: there is none.
    """
    checkpoint = _checkpoint_at(books, size)
    if checkpoint is None:
        which = "" if size is None else f" of size {size}"
        raise NotFoundError(f"there is no checkpoint{which}", param="size", code="checkpoint_not_found")
    return checkpoint


def verify_keys(books: Books) -> list[VerifyKey]:
    """Every public key that the books name as theirs, oldest first."""
    with books.ledger.database.read() as connection:
        keys = sealer.verify_keys(connection)
    return [VerifyKey(name=key.name, key_id=key.key_id, public=key.encode()) for key in keys]


def prove_inclusion(books: Books, visible: str | None, source: str, sequence: int, size: int | None) -> Inclusion:
    """The path from a leaf to a signed root.

    Args:
        books: whose log it is.
        visible: the only client whose receipts and statements, and the calibrations of whose consortia, may be proved;
            None is everybody's.
        source: "receipt" or "event".
        sequence: its number.
        size: of the checkpoint; None is the latest.

    Raises:
        NotFoundError: there is no such leaf, not yet, or not for whom it is to be shown to.
    """
    if source == "event" and any(each.sequence == sequence for each in list_calibrations(books, visible)):
        visible = None  # it is no secret of anybody, and so of no client
    with books.ledger.database.read(member=visible) as connection:
        if visible is not None and not ownership.owns(connection, source, sequence, visible):
            raise NotFoundError(f"{source} {sequence} is not in the log", param="sequence", code="not_in_log")
        return Inclusion.model_validate(_proof(lambda: proofs.inclusion(connection, source, sequence, size)))


def prove_consistency(books: Books, first: int, second: int | None = None) -> Consistency:
    """The proof that the log of `second` leaves, the latest where that is None, only added to the one of `first`.

    Raises:
        InvalidRequestError: the second is smaller than the first.
        NotFoundError: there is no checkpoint of such a size.
    """
    if second is not None and second < first:
        raise InvalidRequestError(
            f"second must be at least first ({first}), not {second}: a log only grows",
            param="second",
            code="invalid_value",
        )
    with books.ledger.database.read() as connection:
        return Consistency.model_validate(_proof(lambda: proofs.consistency(connection, first, second)))


def prove_entry(books: Books, visible: str | None, response_id: str, client: str | None) -> ReceiptProof:
    """A client's entry of a response, opened against the signed log. It tells nothing of other clients' entries.

    Args:
        books: whose log it is.
        visible: the only client whose entries may be proved; None is everybody's.
        response_id: of a response, or of a reversal.
        client: whose entry; None is that of `visible`.

    Raises:
        InvalidRequestError: nobody says whose entry.
        NotFoundError: there is no such entry, or none in the log yet.
    """
    account = visible or client
    if account is None:
        raise InvalidRequestError(
            "client is missing: whose entry is to be proved?", param="client", code="missing_required_parameter"
        )
    with books.ledger.database.read() as connection:
        if client in (None, account) and ownership.has_entry(connection, response_id, account):
            return ReceiptProof.model_validate(_proof(lambda: proofs.receipt_proof(connection, response_id, account)))
    raise NotFoundError(
        f"client {client or account!r} has no entry in a receipt {response_id!r}",
        param="response_id",
        code="entry_not_found",
    )


def seal_log(books: Books) -> Checkpoint:
    """Put what is new into the log and sign a checkpoint, as the service does by itself every few seconds.

    Raises:
        UnavailableError: this service has no key to sign with.
        NotFoundError: there was nothing to seal, and never was.
    """
    signer = books.signer()
    if signer is None:
        raise UnavailableError("this service has no signing key to sign with", code="signing_key_unavailable")
    sealer.seal(books.ledger, signer, sealer.log_origin(books.ledger, signer))
    return signed_checkpoint(books, None)


def _checkpoint_at(books: Books, size: int | None) -> Checkpoint | None:
    with books.ledger.database.read() as connection:
        sealed = checkpoints.checkpoint_at(connection, size)
    if sealed is None:
        return None
    return Checkpoint(
        origin=sealed.origin,
        size=sealed.size,
        root=sealed.root,
        key_id=sealed.key_id,
        sealed_at_us=sealed.sealed_at_us,
        note=sealed.note,
    )


def _proof(prove: Callable[[], Proof]) -> Proof:
    """A proof; one that there cannot be, or not yet, is not found, with the reason."""
    try:
        return prove()
    except LogError as error:
        raise NotFoundError(str(error), code="not_in_log") from error
