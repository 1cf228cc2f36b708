"""Signatures of recorded rounds: they are taken into a bundle where every update is signed by whose it is.

Whose key is whose, the front page of the recorded rounds says; members hold their own against the bundle
(`own_updates`). That hashes and rounds follow was checked as the rounds were read.
"""

from collections.abc import Mapping

from attribution.rounds.documents import FEDERATION_NAME, ROUND_NAME, Member, RecordedUpdate, round_name
from attribution.rounds.reading import RecordedRounds
from deployment.members.signed_updates import SentUpdate, check_statement, sign_receipt
from rewards.errors import SignatureError
from rewards.signing.keys import SigningKey, VerifyKey


def require_signed(recorded: RecordedRounds, *, unsigned: bool) -> None:
    """Refuse an update that its member did not sign; where `unsigned`, not of those who have no key to sign with.

    Raises:
        SignatureError: a statement is missing, of another key, or of another update; file and client are named.
    """
    keys = {
        member.client: signing_key_of(member, f"{recorded.folder / FEDERATION_NAME}") for member in members(recorded)
    }
    for sent, update in sent_updates(recorded):
        path, key = recorded.folder / round_name(sent.round) / ROUND_NAME, keys[update.client]
        if key is None and unsigned and update.statement is None:
            continue
        if key is None:
            raise SignatureError(
                f"{path}: client {update.client!r}: has no signing_key in {FEDERATION_NAME}, so nobody can tell whether"
                " it sent this; `protoken member keygen` makes one, and --unsigned takes what nobody signed"
            )
        if update.statement is None:
            raise SignatureError(
                f"{path}: client {update.client!r}: its update is not signed, and it has a signing_key"
            )
        try:
            check_statement(update.statement, sent, key)
        except SignatureError as error:
            raise SignatureError(f"{path}: client {update.client!r}: statement: {error}") from error


def receipts_for(recorded: RecordedRounds, key: SigningKey) -> Mapping[tuple[int, str], str]:
    """What the aggregator signs for each update that it has, by round and client."""
    return {
        (sent.round, sent.client): sign_receipt(sent, update.statement, key) for sent, update in sent_updates(recorded)
    }


def sent_updates(recorded: RecordedRounds) -> list[tuple[SentUpdate, RecordedUpdate]]:
    """Every update of every round, with what a statement of it has to say."""
    consortium = recorded.federation.consortium
    return [
        (
            SentUpdate(consortium, each.round, update.client, each.before_sha256, update.sha256, update.weight),
            update,
        )
        for each in recorded.rounds
        for update in each.updates
    ]


def members(recorded: RecordedRounds) -> tuple[Member, ...]:
    """Who trained together."""
    return recorded.federation.members


def signing_key_of(member: Member, where: str) -> VerifyKey | None:
    """The key that a member signs with, where the front page names one.

    Raises:
        SignatureError: it is no public key.
    """
    if member.signing_key is None:
        return None
    try:
        return VerifyKey.decode(member.signing_key)
    except SignatureError as error:
        raise SignatureError(f"{where}: members: {member.client!r}: signing_key: {error}") from error
