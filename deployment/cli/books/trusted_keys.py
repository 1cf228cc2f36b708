"""What a member or an auditor knows from elsewhere: files of public keys, and a checkpoint held from earlier."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from deployment.errors import SettingsError
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
        SignatureError: a line is no public key.
    """
    lines = [line for file in files or () for line in read_text_of(file).splitlines() if line.strip()]
    return [VerifyKey.decode(line) for line in lines]


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
