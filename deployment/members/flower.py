"""A member's update signed as it leaves its Flower client, in one line of the client app, and looked at as it arrives.

    app = ClientApp(mods=[sign_updates()])

Whose key signs is the node's to say, by whose operator the SuperNode is started, and not the app's, which all share:

    flower-supernode … --node-config 'protoken-key="north.key" protoken-sent="sent"
                                      protoken-consortium="hospitals" protoken-client="north"'

What is signed is what the recorder on the server hashes (`attribution.rounds`): the tensors as they are sent, the model
that they began from, the round and the weight. Made for Flower 1.42, which it does not import.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attribution.errors import RoundsError
from attribution.files.destinations import prepare_folder, write_file
from attribution.rounds.documents import Federation, RecordedUpdate
from attribution.rounds.flower_messages import (
    RECORDED_ROUND,
    SERVER_ROUND,
    STATEMENT_FIELD,
    STATEMENT_RECORD,
    Arrays,
    read_update,
    record_tensors,
)
from attribution.rounds.hashing import tensors_sha256
from deployment.members.signatures import statement_problem
from deployment.members.signed_updates import SentUpdate, sign_update
from rewards.signing.keys import SigningKey

_CONFIGURATION = ("protoken-key", "protoken-consortium", "protoken-client", "protoken-sent")
Mod = Callable[[Any, Any, Callable[[Any, Any], Any]], Any]


def sign_updates(*, weighted_by: str = "num-examples") -> Mod:
    """A mod of a ClientApp that signs every update which the client sends.

    Of the node's configuration it takes `protoken-key`, the file of the member's signing key, `protoken-consortium` and
    `protoken-client`, what it is called there, and `protoken-sent`, a folder for the statements, by which the member
    finds its updates in a bundle later.

    Args:
        weighted_by: the metric that is the update's weight.
    """

    def sign(message: Any, context: Any, call_next: Callable[[Any, Any], Any]) -> Any:
        """Let the client train, and sign what it answers.

        Raises:
            RoundsError: the configuration of the node lacks a name, or the message says no round.
            SignatureError: the key's file holds none.
            DestinationError: nothing can be written to the folder.
        """
        if not message.metadata.message_type.startswith("train"):
            return call_next(message, context)
        signer = _Signer(context.node_config)
        number, before = _round_of(message.content.config_records), record_tensors(_only(message.content.array_records))
        before_sha256, shapes = tensors_sha256(before), {name: tensor.shape for name, tensor in before.items()}
        record = type(next(iter(message.content.config_records.values())))
        reply = call_next(message, context)
        if not reply.has_error():
            update, _ = read_update(reply.content, signer.client, shapes, weighted_by)
            statement = signer.sign(number, before_sha256, tensors_sha256(update.tensors), update.weight)
            reply.content[STATEMENT_RECORD] = record({STATEMENT_FIELD: statement})
        return reply

    return sign


def require_signature(federation: Federation, number: int, before_sha256: str, update: RecordedUpdate) -> None:
    """Refuse what a member that signs did not sign so: `record_rounds(…, admit=require_signature)` leaves it out.

    So it is neither averaged nor recorded, and stops nobody else. Whoever has no signing_key is not asked for one.

    Raises:
        RoundsError: the statement is missing, of another key, or of another update.
    """
    keys = {member.client: member.signing_key for member in federation.members}
    sent = SentUpdate(federation.consortium, number, update.client, before_sha256, update.sha256, update.weight)
    if problem := statement_problem(update, sent, keys[update.client]):
        raise RoundsError(problem)


class _Signer:
    """The member whose node this is."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        if missing := [name for name in _CONFIGURATION if not isinstance(config.get(name), str)]:
            raise RoundsError(f"the node's configuration has no text {missing[0]!r}, so its updates cannot be signed")
        key, self._consortium, self.client, sent = (config[name] for name in _CONFIGURATION)
        self._key, self._sent = SigningKey.load(Path(key)), Path(sent)
        prepare_folder(self._sent)

    def sign(self, number: int, before_sha256: str, sha256: str, weight: float) -> str:
        """The statement of an update, which is kept as well."""
        sent = SentUpdate(self._consortium, number, self.client, before_sha256, sha256, weight)
        statement = sign_update(sent, self._key)
        write_file(self._sent / f"round-{number:04d}-{sha256[:8]}.json", f"{statement}\n".encode())
        return statement


def _round_of(records: Mapping[str, Mapping[str, Any]]) -> int:
    for name in (RECORDED_ROUND, SERVER_ROUND):  # a run that goes on counts its own rounds from 1 again
        for record in records.values():
            number = record.get(name)
            if isinstance(number, int):
                return number
    raise RoundsError(f"the message to train says no {SERVER_ROUND!r}, so no statement can say for which round it is")


def _only(records: Mapping[str, Arrays]) -> Arrays:
    if len(records) != 1:
        raise RoundsError(f"the message to train has {len(records)} records of arrays; one is wanted")
    return next(iter(records.values()))
