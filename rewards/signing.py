"""Ed25519 keys, and what is signed by them: C2SP signed notes, log checkpoints, and JSON documents in RFC 8785 form.

Formats: C2SP signed-note and tlog-checkpoint; JSON Canonicalization Scheme (RFC 8785); Ed25519 (RFC 8032). Keys are
spelled as Go's `note` package spells them. Whatever cannot be verified raises; base64 has one spelling, so that no
altered character passes. Knows no database, no clock and no receipt.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from rewards.errors import SignatureError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ED25519 = b"\x01"  # the algorithm's byte in signed-note keys and key ids
_PRIVATE = "PRIVATE+KEY+"
_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_ID_BYTES = 4
_ROOT_BYTES = 32
_DOCUMENT_FIELDS = {"algorithm", "key_id", "key_name", "value"}


@dataclass(frozen=True)
class VerifyKey:
    """The public half of a signing key.

    Attributes:
        name: who signs, as in "consortium.example/ledger".
        public: 32 bytes.
    """

    name: str
    public: bytes

    @property
    def key_id(self) -> str:
        """First 4 bytes of SHA-256(name, 0x0A, 0x01, public key) as hex (C2SP signed-note)."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:_ID_BYTES].hex()

    def encode(self) -> str:
        """`<name>+<key id>+<base64>`, one line to hand to whoever verifies."""
        return f"{self.name}+{self.key_id}+{_base64(_ED25519 + self.public)}"

    @classmethod
    def decode(cls, text: str) -> VerifyKey:
        """The key that `encode` spelled.

        Raises:
            SignatureError: it is no such spelling, or its id is not that of its name and key.
        """
        key = cls(*_parts(text.strip(), "public key"))
        _require_id(key, text.strip().split("+", 2)[1])
        return key

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether this key signed exactly this message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class SigningKey:
    """An Ed25519 key that signs under a name; its secret leaves it only by `save`."""

    def __init__(self, name: str, seed: bytes) -> None:
        _require_name(name)
        self.name = name
        self._seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = VerifyKey(name, self._key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, name: str) -> SigningKey:
        """A new key.

        Raises:
            SignatureError: the name is empty, unprintable, or holds a space or a plus sign.
        """
        return cls(name, Ed25519PrivateKey.generate().private_bytes_raw())

    def __repr__(self) -> str:
        return f"SigningKey({self.name!r}, {self.public.key_id})"

    def sign(self, message: bytes) -> bytes:
        """64 bytes (RFC 8032)."""
        return self._key.sign(message)

    def save(self, path: Path) -> None:
        """Write the key, readable by its owner alone; never over another file.

        Raises:
            SignatureError: the file exists already or cannot be written; it is named.
        """
        line = f"{_PRIVATE}{self.name}+{self.public.key_id}+{_base64(_ED25519 + self._seed)}\n"
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise SignatureError(f"signing key {path}: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """The key in a file that `save` wrote.

        Raises:
            SignatureError: the file cannot be read, or holds no signing key; it is named.
        """
        try:
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SignatureError(f"signing key {path} cannot be read: {error}") from error
        if not text.startswith(_PRIVATE):
            raise SignatureError(f"signing key {path}: it must begin with {_PRIVATE}")
        encoded = text.removeprefix(_PRIVATE)
        try:
            key = cls(*_parts(encoded, "signing key"))
            _require_id(key.public, encoded.split("+", 2)[1])
        except SignatureError as error:
            raise SignatureError(f"signing key {path}: {error}") from error
        return key


@dataclass(frozen=True)
class Checkpoint:
    """What a log commits to (C2SP tlog-checkpoint): its name, its number of leaves, and its root of 32 bytes."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Three lines: origin, size, root in base64."""
        return f"{self.origin}\n{self.size}\n{_base64(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """The checkpoint that `text` spelled.

        Raises:
            SignatureError: it has another form.
        """
        match text.split("\n"):
            case [origin, size, root, ""] if origin and size.isascii() and size.isdecimal() and str(int(size)) == size:
                return cls(origin, int(size), _unbase64(root, _ROOT_BYTES, "root of the checkpoint"))
            case _:
                raise SignatureError("a checkpoint has three lines: origin, size in decimals, root in base64")


def sign_note(text: str, key: SigningKey) -> str:
    """`text`, an empty line, and one signature line (C2SP signed-note).

    Raises:
        SignatureError: the text does not end in a newline.
    """
    if not text.endswith("\n"):
        raise SignatureError("the text of a note must end in a newline")
    signature = bytes.fromhex(key.public.key_id) + key.sign(text.encode())
    return f"{text}\n— {key.name} {_base64(signature)}\n"


def open_note(note: str, keys: Sequence[VerifyKey]) -> tuple[str, VerifyKey]:
    """The text of a note, and the first of `keys` whose signature is under it; unknown signers are passed over.

    Raises:
        SignatureError: the note is malformed, no known key signed it, or a known key's signature does not verify.
    """
    text, separator, signatures = note.rpartition("\n\n")
    if not separator or not signatures.endswith("\n"):
        raise SignatureError("a signed note is a text, an empty line, and signature lines")
    text += "\n"
    signers = []
    for line in signatures[:-1].split("\n"):
        signer = _signer(text, line, keys)
        if signer is not None:
            signers.append(signer)
    if not signers:
        raise SignatureError(f"no known key signed this note; known are: {', '.join(map(_shown, keys)) or 'none'}")
    return text, signers[0]


def _signer(text: str, line: str, keys: Sequence[VerifyKey]) -> VerifyKey | None:
    """The known key that made a signature line; None when the signer is unknown."""
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != "—":
        raise SignatureError(f"not a signature line: {line[:80]!r}")
    name, value = parts[1], _unbase64(parts[2], None, f"signature by {parts[1]!r}")
    for key in keys:
        if key.name == name and bytes.fromhex(key.key_id) == value[:_ID_BYTES]:
            if not key.verify(text.encode(), value[_ID_BYTES:]):
                raise SignatureError(f"the signature by {_shown(key)} does not verify: the text was altered")
            return key
    return None


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> str:
    """A checkpoint as a signed note."""
    return sign_note(checkpoint.text(), key)


def open_checkpoint(note: str, keys: Sequence[VerifyKey], origin: str) -> Checkpoint:
    """The checkpoint in a signed note.

    Raises:
        SignatureError: as `open_note` and `Checkpoint.parse`, or the checkpoint is another log's.
    """
    text, _ = open_note(note, keys)
    checkpoint = Checkpoint.parse(text)
    if checkpoint.origin != origin:
        raise SignatureError(f"this is a checkpoint of {checkpoint.origin!r}, not of {origin!r}")
    return checkpoint


def canonical_json(document: Any) -> bytes:
    """The RFC 8785 form of a JSON document.

    Raises:
        SignatureError: it holds what that form cannot express, such as NaN, or an integer beyond ±(2^53 - 1), which
            is to be given as text.
    """
    try:
        return rfc8785.dumps(document)
    except rfc8785.CanonicalizationError as error:
        raise SignatureError(f"the document has no RFC 8785 form: {error}; give large integers as text") from error


def sign_document(document: Mapping[str, Any], key: SigningKey) -> dict[str, Any]:
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
        "value": _base64(key.sign(canonical_json(dict(document)))),
    }
    return {**document, "signature": signature}


def verify_document(document: Mapping[str, Any], keys: Sequence[VerifyKey]) -> VerifyKey:
    """The known key that signed a document.

    Raises:
        SignatureError: there is no signature, it has another form, its key is not known, or it does not verify.
    """
    signature = document.get("signature")
    if not isinstance(signature, dict) or set(signature) != _DOCUMENT_FIELDS:
        raise SignatureError(
            f"the document needs a field 'signature' with exactly {', '.join(sorted(_DOCUMENT_FIELDS))}"
        )
    if signature["algorithm"] != "Ed25519":
        raise SignatureError(f"signature.algorithm must be 'Ed25519', not {signature['algorithm']!r}")
    value = _unbase64(signature["value"], _SIGNATURE_BYTES, "signature.value")
    signed = canonical_json({name: field for name, field in document.items() if name != "signature"})
    for key in keys:
        if (key.key_id, key.name) == (signature["key_id"], signature["key_name"]):
            if not key.verify(signed, value):
                raise SignatureError(f"the signature by {_shown(key)} does not verify: the document was altered")
            return key
    raise SignatureError(
        f"the document is signed by {signature['key_name']!r} ({signature['key_id']!r}), which is not among the known"
        f" keys: {', '.join(map(_shown, keys)) or 'none'}"
    )


def _shown(key: VerifyKey) -> str:
    return f"{key.name} ({key.key_id})"


def _parts(text: str, what: str) -> tuple[str, bytes]:
    """Name and 32 bytes of `<name>+<key id>+<base64 of 0x01 and the bytes>`; the id is the caller's to check."""
    parts = text.split("+", 2)  # base64 may hold plus signs, a name may not
    if len(parts) != 3:
        raise SignatureError(f"a {what} is spelled <name>+<key id>+<base64>")
    _require_name(parts[0])
    value = _unbase64(parts[2], 1 + _KEY_BYTES, what)
    if value[:1] != _ED25519:
        raise SignatureError(f"the {what} is of algorithm {value[0]}; 1, Ed25519, is known")
    return parts[0], value[1:]


def _require_id(key: VerifyKey, key_id: str) -> None:
    if key.key_id != key_id:
        raise SignatureError(f"key id {key_id!r} is not that of name and key, which is {key.key_id!r}")


def _require_name(name: str) -> None:
    if not name or not name.isprintable() or "+" in name or any(character.isspace() for character in name):
        raise SignatureError(f"a key's name must be printable, without spaces and plus signs, not {name!r}")


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _unbase64(text: Any, size: int | None, what: str) -> bytes:
    """Bytes of a base64 text that is spelled as `_base64` would, of `size` bytes where that is given."""
    try:
        value = base64.b64decode(text, validate=True)
    except (ValueError, TypeError) as error:
        raise SignatureError(f"the {what} is not base64") from error
    if _base64(value) != text or (size is not None and len(value) != size):
        raise SignatureError(f"the {what} is not the base64 of {size or 'its'} bytes")
    return value
