"""`protoken ledger check-proof`: a proof checked offline, by public keys that a member knows; needs no ledger."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from deployment.cli.books.trusted_keys import (
    PublicKeys,
    checkpoint_document,
    read_checkpoint,
    read_keys,
    read_text_of,
)
from deployment.cli.number_format import credit
from deployment.cli.options import Json, date
from deployment.cli.output import print_json, say
from rewards.errors import LogError, SignatureError
from rewards.files import strict_json
from rewards.files.strict_json import JsonObject
from rewards.log import proofs
from rewards.log.publication_proofs import verify_publication_proof
from rewards.signing.keys import VerifyKey


def check_proof(
    file: Annotated[Path, typer.Argument(help="Proof, as `protoken ledger proof` printed it.")],
    public_key: PublicKeys = None,
    origin: Annotated[
        str | None, typer.Option("--origin", help="Name of the log; else that of the first public key.")
    ] = None,
    held: Annotated[
        Path | None, typer.Option("--checkpoint", help="Older checkpoint that you hold, for a proof of consistency.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a proof offline: of an entry or a published bundle in the signed books, or of history kept as it was."""
    keys = read_keys(public_key)
    if not keys:
        raise typer.BadParameter("give the ledger's public key by --public-key FILE: a proof holds for who knows one")
    keys = [replace(key, origin=origin) for key in keys]
    document, name = _json(file), origin or keys[0].name
    kind = document.get("proof") if isinstance(document, dict) else None
    if kind == "consistency" and held is None:
        raise typer.BadParameter("a proof of consistency needs the older one, by --checkpoint FILE")
    older = "" if held is None else read_checkpoint(held)
    try:
        if kind == "consistency":
            shown, line = _consistency(document, older, keys, name)
        elif kind == "publication":
            shown, line = _publication(document, keys, name)
        else:
            shown, line = _receipt(document, keys, name)
    except (LogError, SignatureError) as error:
        named = f"{file} against {held}" if kind == "consistency" else str(file)
        raise type(error)(f"{named}: {error}") from error
    if as_json:
        print_json({"ok": True, **shown})
    else:
        say(line, soft_wrap=True)


def _consistency(document: Any, held: str, keys: list[VerifyKey], name: str) -> tuple[JsonObject, str]:
    newer = proofs.verify_consistency(document, held, keys, name)
    shown = {"extends": document["first"], "checkpoint": checkpoint_document(newer)}
    return (
        shown,
        f"{name} at {newer.size} leaves extends the {document['first']} leaves of the checkpoint that you hold",
    )


def _publication(document: Any, keys: list[VerifyKey], name: str) -> tuple[JsonObject, str]:
    proved = verify_publication_proof(document, keys, name)
    shown = {**asdict(proved), "checkpoint": checkpoint_document(proved.checkpoint)}
    return shown, (
        f"round {proved.round} of {proved.consortium} was published {date(proved.at_us)} with the manifest "
        f"{proved.manifest_sha256}, in the log of {name}"
    )


def _receipt(document: Any, keys: list[VerifyKey], name: str) -> tuple[JsonObject, str]:
    entry = proofs.verify_receipt_proof(document, keys, name)
    shown = {**asdict(entry), "amount": str(entry.amount), "checkpoint": checkpoint_document(entry.checkpoint)}
    return shown, (
        f"{entry.client} has {credit(entry.amount)} micro-credits of {entry.response_id}, booked "
        f"{date(entry.booked_at_us)} as receipt {entry.sequence} of {name}"
    )


def _json(file: Path) -> Any:
    try:
        return strict_json.load(read_text_of(file))
    except ValueError as error:
        raise LogError(f"{file} holds no JSON: {error}") from error
