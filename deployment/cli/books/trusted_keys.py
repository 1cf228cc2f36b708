"""What a member or an auditor knows from elsewhere: files of public keys, and a checkpoint held from earlier."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from deployment.errors import SettingsError
from rewards.errors import SignatureError
from rewards.files.strict_json import JsonObject
from rewards.signing.keys import VerifyKey
from rewards.signing.notes import Checkpoint

PublicKeys = Annotated[
    list[Path] | None,
    typer.Option("--public-key", help="File with public keys of the ledger that you know, one a line; repeat."),
]


def read_keys(files: Sequence[Path] | None) -> list[VerifyKey]:
    """The public keys of files, one a line.

    Raises:
        SettingsError: a file cannot be read.
        SignatureError: a line of one is no public key.
    """
    return [key for file in files or () for key in _keys_of(file)]


def _keys_of(file: Path) -> list[VerifyKey]:
    try:
        return [VerifyKey.decode(line) for line in read_text_of(file).splitlines() if line.strip()]
    except SignatureError as error:
        raise SignatureError(f"{file}: {error}") from error


def read_checkpoint(file: Path) -> str:
    """The signed note of a checkpoint that is held, as yet unchecked.

    Raises:
        SettingsError: the file cannot be read, or holds something else.
    """
    note = read_text_of(file)
    if "\n\n" not in note:
        is_json = note.lstrip().startswith("{")
        why = "the whole JSON answer, of which the field `note` is wanted" if is_json else "no signed note"
        raise SettingsError(f"{file} is no checkpoint: it holds {why}")
    return note


def read_text_of(file: Path) -> str:
    """The text of a file: a key, a checkpoint or a proof.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}") from error


def checkpoint_document(checkpoint: Checkpoint) -> JsonObject:
    """A checkpoint as `--json` shows it."""
    return {"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex()}
