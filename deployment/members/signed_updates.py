"""What a member signs of one update, and what the aggregator signs for having it: JSON under Ed25519 in RFC 8785 form.

Both say of which consortium, round and client the update is, what it began from, the hash of its tensors
(`attribution.rounds.hashing`) and its weight. So one that was signed for a round holds for no other: it is not of that
round, and did not begin from that model. Does not know where updates come from, nor whose key is whose.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from rewards.errors import SignatureError
from rewards.files import strict_json
from rewards.files.strict_json import JsonObject
from rewards.signing.documents import canonical_json, sign_document, verify_document
from rewards.signing.keys import SigningKey, VerifyKey

_UPDATE = "protoken-update/1"
_RECEIPT = "protoken-update-receipt/1"
_WORDS = {str: "a text", int: "a whole number"}


@dataclass(frozen=True)
class SentUpdate:
    """One update, by all that a signature binds it to.

    Attributes:
        consortium: in which it was sent.
        round: from 1 on.
        client: whose it is.
        before_sha256: of the global model that it began from.
        sha256: of the tensors that were sent.
        weight: what it declares, before the aggregator makes ρ of it.
    """

    consortium: str
    round: int
    client: str
    before_sha256: str
    sha256: str
    weight: float


def sign_update(sent: SentUpdate, key: SigningKey) -> str:
    """The statement of whoever sent an update, as one line of JSON."""
    return _sign({"kind": _UPDATE, **_fields(sent)}, key)


def sign_receipt(sent: SentUpdate, statement: str | None, key: SigningKey) -> str:
    """What an aggregator signs for an update that it has, and for the statement that came with it."""
    digest = None if statement is None else sha256(statement.encode()).hexdigest()
    return _sign({"kind": _RECEIPT, **_fields(sent), "statement_sha256": digest}, key)


def check_statement(text: str, sent: SentUpdate, key: VerifyKey) -> None:
    """Require that the owner of a key signed exactly this update.

    Raises:
        SignatureError: it did not; the field that differs, or what is wrong with the signature, is named.
    """
    _check(text, {"kind": _UPDATE, **_fields(sent)}, [key])


def check_receipt(text: str, sent: SentUpdate, statement: str | None, keys: Sequence[VerifyKey]) -> None:
    """Require that an aggregator, who has one of the keys, signed for exactly this update with exactly this statement.

    Raises:
        SignatureError: it did not; the field that differs, or what is wrong with the signature, is named.
    """
    digest = None if statement is None else sha256(statement.encode()).hexdigest()
    _check(text, {"kind": _RECEIPT, **_fields(sent), "statement_sha256": digest}, keys)


def read_statement(text: str, key: VerifyKey) -> SentUpdate:
    """What a statement says that the owner of a key signed.

    Raises:
        SignatureError: it is none, or another key signed it.
    """
    document = _document(text)
    verify_document(document, [key])
    stated = {name: field for name, field in document.items() if name != "signature"}
    if stated.pop("kind", None) != _UPDATE or set(stated) != set(SentUpdate.__dataclass_fields__):
        raise SignatureError(f"it is signed, and no statement of kind {_UPDATE!r}")
    for name, kind in (("consortium", str), ("round", int), ("client", str), ("before_sha256", str), ("sha256", str)):
        if type(stated[name]) is not kind:
            raise SignatureError(f"{name} must be {_WORDS[kind]}, not {_as_text(stated[name])}")
    try:
        return SentUpdate(**{**stated, "weight": float(stated["weight"])})
    except (TypeError, ValueError) as error:
        raise SignatureError(f"weight must be a number as text, not {_as_text(stated['weight'])}") from error


def _fields(sent: SentUpdate) -> JsonObject:
    """What is signed; the weight as text, for RFC 8785 has no whole numbers of 2^53 and more."""
    return {**asdict(sent), "weight": repr(float(sent.weight))}


def _sign(document: JsonObject, key: SigningKey) -> str:
    return canonical_json(sign_document(document, key)).decode()


def _check(text: str, expected: JsonObject, keys: Sequence[VerifyKey]) -> None:
    document = _document(text)
    verify_document(document, keys)
    stated = {name: field for name, field in document.items() if name != "signature"}
    if set(stated) != set(expected):
        raise SignatureError(f"it is signed, and no document of kind {expected['kind']!r}")
    for name, value in expected.items():
        if stated[name] != value or isinstance(stated[name], bool):
            raise SignatureError(f"it was signed for {name} {_as_text(stated[name])}, and this is {_as_text(value)}")


def _document(text: str) -> JsonObject:
    try:
        document = strict_json.load(text)
    except ValueError as error:
        raise SignatureError(f"it is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise SignatureError("it is no JSON object")
    return document


def _as_text(value: Any) -> str:
    return json.dumps(value)[:100]
