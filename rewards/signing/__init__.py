"""Ed25519 keys, and what is signed by them: C2SP signed notes, log checkpoints, and JSON documents in RFC 8785 form.

Whatever cannot be verified raises `SignatureError`; every text has one spelling, so that no altered character passes.
Knows no database, no clock and no receipt.
"""

from rewards.signing.documents import canonical_json, sign_document, verify_document
from rewards.signing.keys import SigningKey, VerifyKey
from rewards.signing.notes import Checkpoint, open_checkpoint, open_note, require_own, sign_checkpoint, sign_note

__all__ = [
    "Checkpoint",
    "SigningKey",
    "VerifyKey",
    "canonical_json",
    "open_checkpoint",
    "open_note",
    "require_own",
    "sign_checkpoint",
    "sign_document",
    "sign_note",
    "verify_document",
]
