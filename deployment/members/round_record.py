"""Who contributed what to the rounds of a published bundle, what the server did, who was missing, and what is signed.

A publication names the hash of its bundle's manifest: what lies in the bundle's folder now may be another, or nothing.
Needs no model. Whether receipts hold, and the numbers follow from the updates, `protoken consortium verify` says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from attribution.bundle.manifest import MANIFEST_NAME, Manifest, RoundEntry, UpdateEntry
from attribution.errors import BundleError
from deployment.errors import PartLostError
from deployment.members.bundle_front import read_front
from deployment.members.signatures import sent_updates, statement_problem, unsigned_updates
from deployment.members.signed_updates import SentUpdate

Signature = Literal["holds", "none", "fails"]


@dataclass(frozen=True)
class Contribution:
    """What one client sent in a round.

    Attributes:
        client: whose it is.
        weight: its part of the round, of all 1.
        norm: of what it changed, unweighted.
        sha256: of the tensors as they were sent.
        signature: whether its statement holds; "none" where there is none, and no key that it should be signed with.
        problem: why the signature fails; None where it does not.
        has_receipt: whether the aggregator's receipt was kept.
    """

    client: str
    weight: float
    norm: float
    sha256: str
    signature: Signature
    problem: str | None
    has_receipt: bool


@dataclass(frozen=True)
class Absence:
    """Who was asked in a round and sent nothing that counts, and why; a client, or a node where that is all known."""

    client: str | None
    node: str | None
    reason: str


@dataclass(frozen=True)
class RecordedRound:
    """One round of training.

    Attributes:
        number: from 1 on.
        before_sha256: of the global model that it began with.
        after_sha256: of the one that it ended with.
        residual_norm: of what the server did besides averaging, which is no client's.
        residual_ratio: that over the mean of what the clients changed; None where they changed nothing.
        contributions: in the order of the manifest.
        missing: likewise.
    """

    number: int
    before_sha256: str
    after_sha256: str
    residual_norm: float
    residual_ratio: float | None
    contributions: tuple[Contribution, ...]
    missing: tuple[Absence, ...]


@dataclass(frozen=True)
class RoundRecord:
    """What a manifest says of its training.

    Attributes:
        clients: every client of the bundle.
        start_norm: of what training began with beyond the base; None where no rounds were recorded.
        residual_norm: of global − base that is no client's.
        defences: of the aggregator; None where there were none.
        unsigned: client to how many of its updates carry no statement; clients without such are left out.
        absent: clients that took part in no round.
        count: how many rounds were recorded; None where none were.
        rounds: some of them, the last first.
    """

    clients: tuple[str, ...]
    start_norm: float | None
    residual_norm: float
    defences: Mapping[str, bool | float | None] | None
    unsigned: Mapping[str, int]
    absent: tuple[str, ...]
    count: int | None
    rounds: tuple[RecordedRound, ...]


def read_published(folder: Path, manifest_sha256: str) -> Manifest:
    """The manifest of a bundle that was published, from where it lay then.

    Raises:
        PartLostError: it is not there now, or is another; names no path.
    """
    try:
        front = read_front(folder / MANIFEST_NAME)
    except BundleError as error:
        problem = "the bundle's folder is gone, or its manifest cannot be read from here"
        raise PartLostError(problem, "bundle_gone") from error
    if front.sha256 != manifest_sha256:
        raise PartLostError("another bundle lies in the bundle's folder now", "bundle_replaced")
    return front.manifest


def read_record(folder: Path, manifest_sha256: str, *, before: int | None, limit: int) -> RoundRecord:
    """The recorded rounds of a published bundle, the last first.

    Args:
        folder: where the bundle lay when it was published.
        manifest_sha256: which one it was.
        before: rounds before this one alone; None begins with the last.
        limit: how many rounds at most; no others' signatures are looked at.

    Raises:
        PartLostError: the bundle is not there now.
    """
    manifest = read_published(folder, manifest_sha256)
    rounds = manifest.rounds or ()
    came = {update.client for each in rounds for update in each.updates}
    chosen = [each for each in reversed(rounds) if before is None or each.round < before][:limit]
    return RoundRecord(
        clients=tuple(client.id for client in manifest.clients),
        start_norm=manifest.start_norm,
        residual_norm=manifest.global_.residual_norm,
        defences=manifest.defences,
        unsigned=unsigned_updates(manifest),
        absent=tuple(client.id for client in manifest.clients if client.id not in came) if rounds else (),
        count=None if manifest.rounds is None else len(rounds),
        rounds=_judge(manifest, chosen),
    )


def _judge(manifest: Manifest, chosen: list[RoundEntry]) -> tuple[RecordedRound, ...]:
    keys = {client.id: client.signing_key for client in manifest.clients}
    sent = {(each.round, each.client): each for each, _ in sent_updates(manifest)}
    return tuple(
        RecordedRound(
            number=each.round,
            before_sha256=each.before_sha256,
            after_sha256=each.after_sha256,
            residual_norm=each.residual_norm,
            residual_ratio=each.residual_ratio,
            contributions=tuple(
                _contribution(update, sent[each.round, update.client], keys[update.client]) for update in each.updates
            ),
            missing=tuple(Absence(absence.client, absence.node, absence.reason) for absence in each.missing),
        )
        for each in chosen
    )


def _contribution(update: UpdateEntry, sent: SentUpdate, key: str | None) -> Contribution:
    problem = statement_problem(update, sent, key)
    signature: Signature = "fails" if problem else "none" if update.statement is None else "holds"
    has_receipt = update.receipt is not None
    return Contribution(update.client, update.weight, update.norm, update.sha256, signature, problem, has_receipt)
