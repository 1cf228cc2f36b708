"""What a member sent, held against a bundle: is it all there, unaltered, and nothing else under its name.

The member brings what it kept: its public key and its own statements. What it did not keep it cannot miss. Whether the
bundle's numbers follow from its updates is `protoken consortium verify`'s to check, which needs the base model.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from attribution.bundle.manifest import Manifest
from deployment.members.signatures import sent_updates
from deployment.members.signed_updates import SentUpdate, check_statement, read_statement
from rewards.errors import SignatureError
from rewards.signing.keys import VerifyKey

Standing = Literal["credited", "not in this bundle yet", "not credited", "altered", "not kept", "not signed"]


@dataclass(frozen=True)
class OwnUpdate:
    """One update of a member: as it was sent, as the bundle has it, or both.

    Attributes:
        round: in which it was sent.
        standing: what became of it.
        reason: why it is so, or an empty text.
        weight: ρ, its part of the round, where the bundle has it.
    """

    round: int
    standing: Standing
    reason: str = ""
    weight: float | None = None

    @property
    def is_wrong(self) -> bool:
        """Whether the member has something to ask about."""
        return self.standing not in {"credited", "not in this bundle yet"}


def own_updates(manifest: Manifest, client: str, key: VerifyKey, kept: Mapping[str, str]) -> list[OwnUpdate]:
    """What became of each update of a client, by round.

    Args:
        manifest: of the bundle.
        client: whose.
        key: what it signs with, as it knows itself.
        kept: its statements, by the name of the file that each is in.

    Raises:
        SignatureError: the client is none of this bundle, another key stands there as its own, or what was kept is no
            statement of this client and consortium under this key.
    """
    _require_own_key(manifest, client, key)
    sent = {name: _kept_update(name, text, manifest.consortium, client, key) for name, text in kept.items()}
    listed = {each.round: (each, update) for each, update in sent_updates(manifest) if each.client == client}
    weights = {number: update.weight for number, (_, update) in listed.items()}
    updates = [_of_kept(each, listed.get(each.round, (None,))[0], manifest) for each in sent.values()]
    updates = [replace(each, weight=weights.get(each.round)) for each in updates]
    updates = _with_hints(updates)
    known = {each.round for each in sent.values()}
    for number, (each, update) in listed.items():
        if number not in known:
            updates.append(_of_listed(each, update.statement, key, update.weight))
    return sorted(updates, key=lambda each: each.round)


def _require_own_key(manifest: Manifest, client: str, key: VerifyKey) -> None:
    entry = next((each for each in manifest.clients if each.id == client), None)
    if entry is None:
        ids = ", ".join(each.id for each in manifest.clients)
        raise SignatureError(f"client {client!r} is none of the bundle's: {ids}")
    if entry.signing_key is not None and _key_of(client, entry.signing_key) != key:
        raise SignatureError(f"the bundle has {entry.signing_key!r} as the key of {client!r}, which is not your {key}")


def _key_of(client: str, text: str) -> VerifyKey:
    try:
        return VerifyKey.decode(text)
    except SignatureError as error:
        raise SignatureError(f"the bundle: client {client!r}: signing_key: {error}") from error


def _kept_update(name: str, text: str, consortium: str, client: str, key: VerifyKey) -> SentUpdate:
    try:
        sent = read_statement(text, key)
    except SignatureError as error:
        raise SignatureError(f"{name}: {error}") from error
    if (sent.consortium, sent.client) != (consortium, client):
        raise SignatureError(
            f"{name}: is of client {sent.client!r} in {sent.consortium!r}, and what is asked for is {client!r} in"
            f" {consortium!r}"
        )
    return sent


def _of_kept(sent: SentUpdate, listed: SentUpdate | None, manifest: Manifest) -> OwnUpdate:
    if sent.round > manifest.round:
        return OwnUpdate(sent.round, "not in this bundle yet", f"it has the rounds to {manifest.round}")
    if listed is None:
        return OwnUpdate(sent.round, "not credited", next(_absences(manifest, sent), "the bundle does not say why"))
    differing = [name for name in vars(sent) if getattr(sent, name) != getattr(listed, name)]
    if differing:
        name = differing[0]
        what = f"you signed {name} {getattr(sent, name)!r}, and the bundle has {getattr(listed, name)!r}"
        return OwnUpdate(sent.round, "altered", what)
    return OwnUpdate(sent.round, "credited")


def _with_hints(updates: list[OwnUpdate]) -> list[OwnUpdate]:
    """The same; where two were signed for a round and one is credited, the other says so: it may be of a broken run."""
    credited = {each.round for each in updates if each.standing == "credited"}
    hint = "; another that you signed for this round is credited: if the round was begun again, put this one away"
    return [
        replace(each, reason=each.reason + hint) if each.standing == "altered" and each.round in credited else each
        for each in updates
    ]


def _absences(manifest: Manifest, sent: SentUpdate) -> Iterator[str]:
    for each in manifest.rounds or ():
        for missing in each.missing:
            if (each.round, missing.client) == (sent.round, sent.client):
                yield f"left out: {missing.reason}"


def _of_listed(listed: SentUpdate, statement: str | None, key: VerifyKey, weight: float) -> OwnUpdate:
    """What the bundle has under the member's name, and of which the member kept nothing."""
    if statement is None:
        return OwnUpdate(listed.round, "not signed", "the bundle has an update without a statement", weight)
    try:
        check_statement(statement, listed, key)
    except SignatureError as error:
        return OwnUpdate(listed.round, "not signed", f"statement: {error}", weight)
    return OwnUpdate(listed.round, "not kept", "you signed it, and have no statement of it here", weight)
