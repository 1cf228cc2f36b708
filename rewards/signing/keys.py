"""Ed25519 keys (RFC 8032), spelled as Go's `note` package spells them. Knows no note and no document."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from rewards.errors import SignatureError
from rewards.files import private_files
from rewards.signing.encoding import base64_bytes, base64_text

SIGNATURE_BYTES = 64
ID_BYTES = 4
_ED25519 = b"\x01"  # the algorithm's byte in signed-note keys and key ids
_PRIVATE = "PRIVATE+KEY+"
_KEY_BYTES = 32


@dataclass(frozen=True)
class VerifyKey:
    """The public half of a signing key.

    Attributes:
        name: who signs, as in "consortium.example/ledger".
        public: 32 bytes.
        origin: the log that it signs for, where somebody knows that it is one of another name.
    """

    name: str
    public: bytes
    origin: str | None = field(default=None, compare=False)

    @property
    def signs_for(self) -> str:
        """The log that it may sign for: what it signs for any other proves nothing."""
        return self.origin or self.name

    @property
    def key_id(self) -> str:
        """First 4 bytes of SHA-256(name, 0x0A, 0x01, public key) as hex (C2SP signed-note)."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:ID_BYTES].hex()

    def __str__(self) -> str:
        return f"{self.name} ({self.key_id})"

    def encode(self) -> str:
        """`<name>+<key id>+<base64>`, one line to hand to whoever verifies."""
        return f"{self.name}+{self.key_id}+{base64_text(_ED25519 + self.public)}"

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
        """Write the key, readable by its owner alone and durable on return; never over another file.

        Raises:
            SignatureError: the file exists already or cannot be written; it is named.
        """
        line = f"{_PRIVATE}{self.name}+{self.public.key_id}+{base64_text(_ED25519 + self._seed)}\n"
        try:
            private_files.write_new(path, line.encode())
        except OSError as error:
            raise SignatureError(f"signing key {path}: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """The key in a file that `save` wrote, which nobody else can read from then on.

        Raises:
            SignatureError: as of `read`.
        """
        key = cls.read(path)
        private_files.tighten(path)
        return key

    @classmethod
    def read(cls, path: Path) -> SigningKey:
        """The same, and the file stays as it is.

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


def _parts(text: str, what: str) -> tuple[str, bytes]:
    """Name and 32 bytes of `<name>+<key id>+<base64 of 0x01 and the bytes>`; the id is the caller's to check."""
    parts = text.split("+", 2)  # base64 may hold plus signs, a name may not
    if len(parts) != 3:
        raise SignatureError(f"a {what} is spelled <name>+<key id>+<base64>")
    _require_name(parts[0])
    value = base64_bytes(parts[2], 1 + _KEY_BYTES, what)
    if value[:1] != _ED25519:
        raise SignatureError(f"the {what} is of algorithm {value[0]}; 1, Ed25519, is known")
    return parts[0], value[1:]


def _require_id(key: VerifyKey, key_id: str) -> None:
    if key.key_id != key_id:
        raise SignatureError(f"key id {key_id!r} is not that of name and key, which is {key.key_id!r}")


def _require_name(name: str) -> None:
    if not name or not name.isprintable() or "+" in name or any(character.isspace() for character in name):
        raise SignatureError(f"a key's name must be printable, without spaces and plus signs, not {name!r}")
