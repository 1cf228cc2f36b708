"""Signed JSON documents in RFC 8785 form (JSON Canonicalization Scheme). Knows nothing of what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import rfc8785

from rewards.errors import SignatureError
from rewards.files.strict_json import JsonObject
from rewards.signing.encoding import base64_bytes, base64_text
from rewards.signing.keys import SIGNATURE_BYTES, SigningKey, VerifyKey

_MOST_SHOWN = 200  # letters of a foreign value
_FIELDS = {"algorithm", "key_id", "key_name", "value"}


def canonical_json(document: Any) -> bytes:
    """The RFC 8785 form of a JSON document.

    Raises:
        SignatureError: it holds what that form cannot express, such as NaN, or an integer beyond ±(2^53 - 1), which
            is to be given as text.
    """
    try:
        return rfc8785.dumps(document)
    except ValueError as error:  # its own error is one, and so is that of text that UTF-8 cannot hold
        raise SignatureError(f"the document has no RFC 8785 form: {error}; give large integers as text") from error


def sign_document(document: Mapping[str, Any], key: SigningKey) -> JsonObject:
    """The document with a field `signature` over the RFC 8785 form of all its other fields.

    Raises:
        SignatureError: it is signed already, or has no RFC 8785 form.
    """
    if "signature" in document:
        raise SignatureError("the document has a field 'signature' already")
    signature = {
        "algorithm": "Ed25519",
        "key_id": key.public.key_id,
        "key_name": key.name,
        "value": base64_text(key.sign(canonical_json(dict(document)))),
    }
    return {**document, "signature": signature}


def verify_document(document: Mapping[str, Any], keys: Sequence[VerifyKey]) -> VerifyKey:
    """The known key that signed a document.

    Raises:
        SignatureError: there is no signature, it has another form, its key is not known, or it does not verify.
    """
    signature = document.get("signature")
    if not isinstance(signature, dict) or set(signature) != _FIELDS:
        raise SignatureError(f"the document needs a field 'signature' with exactly {', '.join(sorted(_FIELDS))}")
    if signature["algorithm"] != "Ed25519":
        raise SignatureError(f"signature.algorithm must be 'Ed25519', not {_short(signature['algorithm'])}")
    value = base64_bytes(signature["value"], SIGNATURE_BYTES, "signature.value")
    signed = canonical_json({name: field for name, field in document.items() if name != "signature"})
    for key in keys:
        if (key.key_id, key.name) == (signature["key_id"], signature["key_name"]):
            if not key.verify(signed, value):
                raise SignatureError(f"the signature by {key} does not verify: the document was altered")
            return key
    raise SignatureError(
        f"the document is signed by {_short(signature['key_name'])} ({_short(signature['key_id'])}), which is not among"
        f" the known keys: {', '.join(map(str, keys)) or 'none'}"
    )


def _short(value: Any) -> str:
    """What a stranger's document says, in little more than a line."""
    return repr(value)[:_MOST_SHOWN]
