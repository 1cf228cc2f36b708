"""Signed notes and log checkpoints (C2SP signed-note and tlog-checkpoint). Knows no log, no database and no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rewards.errors import SignatureError
from rewards.signing.encoding import base64_bytes, base64_text
from rewards.signing.keys import ID_BYTES, SigningKey, VerifyKey

_ROOT_BYTES = 32
_SIZE_DIGITS = 19  # a log is numbered by 64-bit integers


@dataclass(frozen=True)
class Checkpoint:
    """What a log commits to (C2SP tlog-checkpoint).

    Attributes:
        origin: the log's name.
        size: number of leaves.
        root: 32 bytes.
        extensions: lines under the root, signed with it, which `rewards.log.checkpoints` chooses; whoever does not
            know them passes over them.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def text(self) -> str:
        """One line each: origin, size, root in base64, and every extension.

        Raises:
            SignatureError: a line is empty or holds a line break, so that it would read as another checkpoint.
        """
        for line in (self.origin, *self.extensions):
            if not line or "\n" in line:
                raise SignatureError(f"a line of a checkpoint must be text without a line break, not {line!r}")
        return "\n".join([self.origin, str(self.size), base64_text(self.root), *self.extensions, ""])

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """The checkpoint that `text` spelled.

        Raises:
            SignatureError: it has another form.
        """
        match text.split("\n"):
            case [origin, size, root, *extensions, ""] if origin and _is_size(size) and all(extensions):
                return cls(origin, int(size), base64_bytes(root, _ROOT_BYTES, "root of the checkpoint"), (*extensions,))
            case _:
                raise SignatureError("a checkpoint has a line each for origin, size in decimals, and root in base64")


def sign_note(text: str, key: SigningKey) -> str:
    """`text`, an empty line, and one signature line (C2SP signed-note).

    Raises:
        SignatureError: the text does not end in a newline.
    """
    if not text.endswith("\n"):
        raise SignatureError("the text of a note must end in a newline")
    signature = bytes.fromhex(key.public.key_id) + key.sign(text.encode())
    return f"{text}\n— {key.name} {base64_text(signature)}\n"


def open_note(note: str, keys: Sequence[VerifyKey]) -> tuple[str, VerifyKey]:
    """The text of a note, and the first of `keys` whose signature is under it; unknown signers are passed over.

    Raises:
        SignatureError: the note is malformed, no known key signed it, or a known key's signature does not verify.
    """
    text, separator, signatures = note.rpartition("\n\n")
    is_text = not any("\ud800" <= character <= "\udfff" for character in note)  # what JSON can hold and UTF-8 cannot
    if not is_text or not separator or not signatures.endswith("\n"):
        raise SignatureError("a signed note is a text, an empty line, and signature lines")
    text += "\n"
    signers = []
    for line in signatures[:-1].split("\n"):
        signer = _signer(text, line, keys)
        if signer is not None:
            signers.append(signer)
    if not signers:
        raise SignatureError(f"no known key signed this note; known are: {', '.join(map(str, keys)) or 'none'}")
    return text, signers[0]


def _signer(text: str, line: str, keys: Sequence[VerifyKey]) -> VerifyKey | None:
    """The known key that made a signature line; None when the signer is unknown."""
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != "—":
        raise SignatureError(f"not a signature line: {line[:80]!r}")
    name, value = parts[1], base64_bytes(parts[2], None, f"signature by {parts[1]!r}")
    for key in keys:
        if key.name == name and bytes.fromhex(key.key_id) == value[:ID_BYTES]:
            if not key.verify(text.encode(), value[ID_BYTES:]):
                raise SignatureError(f"the signature by {key} does not verify: the text was altered")
            return key
    return None


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> str:
    """A checkpoint as a signed note."""
    return sign_note(checkpoint.text(), key)


def open_checkpoint(note: str, keys: Sequence[VerifyKey], origin: str) -> Checkpoint:
    """The checkpoint in a signed note.

    Raises:
        SignatureError: as `open_note` and `Checkpoint.parse`, or the checkpoint is another log's, or signed for it by a
            key that is another's.
    """
    text, signer = open_note(note, [key for key in keys if key.signs_for == origin] or keys)
    checkpoint = Checkpoint.parse(text)
    if checkpoint.origin != origin:
        raise SignatureError(f"this is a checkpoint of {checkpoint.origin!r}, not of {origin!r}")
    require_own(signer, origin)
    return checkpoint


def require_own(signer: VerifyKey, origin: str) -> None:
    """Refuse what a key signed for a log that is not its own.

    Raises:
        SignatureError: the key signs for another log.
    """
    if signer.signs_for != origin:
        raise SignatureError(
            f"{signer} signs for the ledger {signer.signs_for!r}, and not for {origin!r}, which is named here; where "
            f"the key is known to be of that ledger, say so by --origin {origin}"
        )


def _is_size(text: str) -> bool:
    return len(text) <= _SIZE_DIGITS and text.isascii() and text.isdecimal() and (text == "0" or text[0] != "0")
