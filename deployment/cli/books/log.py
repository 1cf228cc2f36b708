"""`protoken ledger seal | checkpoint | proof | check-proof | verify`: the ledger's Merkle log, from both sides.

The operator seals, hands out checkpoints and proofs; a member checks them, and an auditor all of the books, with the
public keys that each knows from elsewhere.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from deployment.cli.options import Json, LedgerUrl, date
from deployment.cli.output import ProgressBar, credit, print_json, print_table, say
from deployment.errors import SettingsError
from deployment.health.places import log_origin, signing_key
from deployment.settings import ledger_url
from rewards.audit.replay import audit
from rewards.audit.report import Report
from rewards.errors import LogError
from rewards.files import strict_json
from rewards.files.plain_text import one_line
from rewards.files.strict_json import JsonObject
from rewards.ledger.ledger import Ledger
from rewards.log import proofs
from rewards.log.sealing import latest_checkpoint
from rewards.log.sealing import seal as seal_log
from rewards.signing.keys import VerifyKey
from rewards.signing.notes import Checkpoint

__all__ = ["check_proof", "checkpoint", "proof", "seal", "verify"]

_PublicKeys = Annotated[
    list[Path] | None,
    typer.Option("--public-key", help="File with public keys of the ledger that you know, one a line; repeat."),
]


def seal(
    key: Annotated[Path, typer.Option("--key", help="File of the signing key.")] = Path("var/signing.key"),
    ledger: LedgerUrl = None,
    as_json: Json = False,
) -> None:
    """Put what is new into the Merkle log and sign a checkpoint; the running service does so by itself."""
    with closing(Ledger(ledger_url(ledger))) as book:
        signer = signing_key(key, book)
        sealed = seal_log(book, signer, log_origin(book, signer))
    if as_json:
        print_json({"sealed": sealed is not None, "checkpoint": None if sealed is None else _described(sealed)})
    elif sealed is None:
        typer.echo("nothing is new since the last checkpoint")
    else:
        typer.echo(f"sealed {sealed.origin} at {sealed.size} leaves, root {sealed.root.hex()}")


def checkpoint(ledger: LedgerUrl = None, as_json: Json = False) -> None:
    """Print the latest checkpoint, a signed note to keep: whoever holds it sees if history is ever rewritten."""
    with closing(Ledger(ledger_url(ledger))) as book, book.database.read() as connection:
        latest = latest_checkpoint(connection)
    if latest is None:
        raise LogError("nothing is sealed in the log yet; `protoken ledger seal` does it")
    if as_json:
        print_json({"origin": latest.origin, **asdict(latest)})
    else:
        typer.echo(latest.note, nl=False)


def proof(
    response: Annotated[str, typer.Argument(help="Id of the response, or of a reversal.")],
    client: Annotated[str, typer.Option("--client", help="Whose entry to prove; nothing of others' is shown.")],
    ledger: LedgerUrl = None,
    as_json: Json = False,
) -> None:
    """Print the proof (JSON) that a client's entry of a response is in the books that were signed."""
    del as_json  # a proof is JSON in any case
    with closing(Ledger(ledger_url(ledger))) as book, book.database.read() as connection:
        print_json(proofs.receipt_proof(connection, response, client))


def check_proof(
    file: Annotated[Path, typer.Argument(help="Proof, as `protoken ledger proof` printed it.")],
    public_key: _PublicKeys = None,
    origin: Annotated[
        str | None, typer.Option("--origin", help="Name of the log; else that of the first public key.")
    ] = None,
    held: Annotated[
        Path | None, typer.Option("--checkpoint", help="Older checkpoint that you hold, for a proof of consistency.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a proof offline: that an entry is in the signed books, or that these extend a checkpoint that you hold."""
    keys = _keys(public_key)
    if not keys:
        raise typer.BadParameter("give the ledger's public key by --public-key FILE: a proof holds for who knows one")
    keys = [replace(key, origin=origin) for key in keys]
    document, name = _json(file), origin or keys[0].name
    if isinstance(document, dict) and document.get("proof") == "consistency":
        if held is None:
            raise typer.BadParameter("a proof of consistency needs the older one, by --checkpoint FILE")
        newer = proofs.verify_consistency(document, _text(held), keys, name)
        shown: JsonObject = {"extends": document["first"], "checkpoint": _described(newer)}
        line = f"{name} at {newer.size} leaves extends the {document['first']} leaves of the checkpoint that you hold"
    else:
        found = proofs.verify_receipt_proof(document, keys, name)
        shown = {**asdict(found), "amount": str(found.amount), "checkpoint": _described(found.checkpoint)}
        line = (
            f"{found.client} has {credit(found.amount)} micro-credits of {found.response_id}, booked "
            f"{date(found.booked_at_us)} as receipt {found.sequence} of {name}"
        )
    if as_json:
        print_json({"ok": True, **shown})
    else:
        say(line, soft_wrap=True)


def verify(
    ledger: LedgerUrl = None,
    copy: Annotated[
        Path | None, typer.Option("--copy", help="Copy of an SQLite ledger that nobody writes; may be read-only.")
    ] = None,
    public_key: _PublicKeys = None,
    held: Annotated[
        Path | None, typer.Option("--checkpoint", help="Checkpoint from earlier, which the log must extend.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Rebuild the books from their rows alone; exit code 1 names the first row that differs.

    Without --public-key the keys that the books name are believed, which somebody who rewrote all of them could choose.
    """
    if copy is not None and ledger is not None:
        raise typer.BadParameter("give either --ledger or --copy")
    where = copy or ledger_url(ledger)
    keys, note = _keys(public_key), None if held is None else _text(held)
    with ProgressBar() as progress:
        report = audit(where, keys=keys, held=note, progress=progress)
    if as_json:
        print_json(report.to_document())
    if report.difference is not None:
        missing = _missing(report)
        typer.echo(one_line(f"protoken: the books are not in order: {report.difference}{missing}"), err=True)
        raise typer.Exit(1)
    if not as_json:
        _show(report, are_known=bool(keys))
    if copy is not None and report.lacks_write_ahead_log:
        typer.echo(
            f"protoken: what is in {copy} is in order, but it is the bare copy of a ledger in write-ahead mode: what "
            f"waited in {copy.name}-wal is not in it, and nothing in it can tell how much that was; copy by `protoken "
            "ledger backup`, or bring that file beside it",
            err=True,
        )
        raise typer.Exit(1)


def _show(report: Report, *, are_known: bool) -> None:
    rows = [(account, credit(amount)) for account, amount in report.balances.items()]
    footer = ("sum", credit(sum(report.balances.values())))
    print_table(f"{report.tokens} tokens, rebuilt", ("account", "credit"), rows, footer=footer)
    counted = ", ".join(f"{number} {table}" for table, number in report.counts.items())
    say(f"in order: {counted}")
    if report.origin is not None:
        whose = "that you gave" if are_known else "that the books name; compare them: " + ", ".join(report.keys)
        say(f"log {report.origin}: {report.size} leaves, root {report.root}", soft_wrap=True)
        say(f"signed by keys {whose}", soft_wrap=True)
    if report.extends is not None:
        say(f"it extends the {report.extends} leaves of the checkpoint that you hold")
    if report.unsealed:
        say(f"not in the log yet: {report.unsealed} receipts and events")


def _missing(report: Report) -> str:
    """What a checkpoint proves that reaches further than the books."""
    difference = report.difference
    if difference is None or (difference.table, difference.field) != ("the checkpoint held", "size"):
        return ""
    lost = f": the checkpoint proves {difference.key} leaves, so what came after the first {report.size} is missing"
    log = "; it is in the -wal file that was not copied with the ledger" if report.lacks_write_ahead_log else ""
    return lost + log


def _described(found: Checkpoint) -> JsonObject:
    return {"origin": found.origin, "size": found.size, "root": found.root.hex()}


def _keys(files: Sequence[Path] | None) -> list[VerifyKey]:
    lines = [line for file in files or () for line in _text(file).splitlines() if line.strip()]
    return [VerifyKey.decode(line) for line in lines]


def _json(file: Path) -> Any:
    try:
        return strict_json.load(_text(file))
    except ValueError as error:
        raise LogError(f"{file} holds no JSON: {error}") from error


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}") from error
