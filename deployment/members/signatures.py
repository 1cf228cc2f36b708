"""Whether what a bundle keeps of signed updates holds, for anybody who reads it: an operator, an auditor, a member."""

from collections.abc import Iterator, Sequence

from attribution.bundle.manifest import Manifest, UpdateEntry
from attribution.rounds.documents import RecordedUpdate
from deployment.members.signed_updates import SentUpdate, check_receipt, check_statement
from rewards.errors import SignatureError
from rewards.signing.keys import VerifyKey


def signature_problems(manifest: Manifest, aggregator: Sequence[VerifyKey] = ()) -> list[str]:
    """What does not hold of statements and receipts, a sentence each.

    An update without a statement is a problem where its client has a key to sign with; `unsigned_updates` counts all.
    Receipts are looked at where the aggregator's keys are known.
    """
    keys = {client.id: client.signing_key for client in manifest.clients}
    problems = []
    for sent, update in sent_updates(manifest):
        try:
            _require_statement(update, sent, keys[sent.client])
            if aggregator:
                require_receipt(update, sent, aggregator)
        except SignatureError as error:
            problems.append(f"round {sent.round}: client {sent.client!r}: {error}")
    return problems


def statement_problem(update: UpdateEntry | RecordedUpdate, sent: SentUpdate, key: str | None) -> str | None:
    """What does not hold of an update's statement, or that it lacks; None where all is well, or none is due.

    Args:
        update: as the manifest has it, or its round.
        sent: what its statement has to say.
        key: what its client signs with, spelled out; None where it has none.
    """
    try:
        _require_statement(update, sent, key)
    except SignatureError as error:
        return str(error)
    return None


def unsigned_updates(manifest: Manifest) -> dict[str, int]:
    """How many updates of each client carry no statement; who has none of these is left out."""
    counts: dict[str, int] = {}
    for each in manifest.rounds or ():
        for update in each.updates:
            if update.statement is None:
                counts[update.client] = counts.get(update.client, 0) + 1
    return counts


def sent_updates(manifest: Manifest) -> Iterator[tuple[SentUpdate, UpdateEntry]]:
    """Every update of every recorded round, with what a statement of it has to say."""
    name = manifest.consortium
    for each in manifest.rounds or ():
        for update in each.updates:
            yield (
                SentUpdate(name, each.round, update.client, each.before_sha256, update.sha256, update.declared),
                update,
            )


def require_receipt(update: UpdateEntry, sent: SentUpdate, aggregator: Sequence[VerifyKey]) -> None:
    """Require that the aggregator signed for having an update, by one of its keys.

    Raises:
        SignatureError: it did not.
    """
    if update.receipt is None:
        raise SignatureError("the aggregator has not signed for its update")
    try:
        check_receipt(update.receipt, sent, update.statement, aggregator)
    except SignatureError as error:
        raise SignatureError(f"receipt: {error}") from error


def _require_statement(update: UpdateEntry | RecordedUpdate, sent: SentUpdate, key: str | None) -> None:
    if key is None and update.statement is None:
        return
    if key is None:
        raise SignatureError("its update is signed, and it has no signing_key")
    if update.statement is None:
        raise SignatureError("its update is not signed, and it has a signing_key")
    try:
        check_statement(update.statement, sent, VerifyKey.decode(key))
    except SignatureError as error:
        raise SignatureError(f"statement: {error}") from error
