"""`protoken statement issue | verify`: each client's signed statement of a period, and its check offline."""

import json
from pathlib import Path
from typing import Annotated

import typer

from deployment.cli.options import Json, LedgerUrl
from deployment.cli.output import print_json
from deployment.errors import SettingsError
from deployment.places import log_origin
from deployment.settings import ledger_url
from rewards import Ledger, statements
from rewards.sealing import seal
from rewards.signing import SigningKey, VerifyKey

__all__ = ["app"]

app = typer.Typer(help="Issue and check clients' statements.", no_args_is_help=True)


@app.command()
def issue(
    period: Annotated[str, typer.Argument(metavar="PERIOD", help="Name of a final period.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for one JSON file a client; made when missing.")],
    key: Annotated[Path, typer.Option("--key", help="File of the signing key.")] = Path("var/signing.key"),
    ledger: LedgerUrl = None,
) -> None:
    """Seal the log, and write the signed statement of every client, also of those who get nothing."""
    signer, book = SigningKey.load(key), Ledger(ledger_url(ledger))
    seal(book, signer, log_origin(book, signer))
    out.mkdir(parents=True, exist_ok=True)
    with book.database.read() as connection:
        for client in statements.clients(connection, period):
            document = statements.issue(connection, period, client, signer)
            (out / f"{client}.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
            typer.echo(out / f"{client}.json")


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The statement (JSON).")],
    public_key: Annotated[Path, typer.Option("--public-key", help="File with the ledger's public keys, one a line.")],
    as_json: Json = False,
) -> None:
    """Check a statement with the public key alone: no ledger, no network. Says what it checked."""
    try:
        lines = public_key.read_text(encoding="utf-8").splitlines()
        document = statements.load(file.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"a file cannot be read: {error}") from error
    checked = statements.verify(document, [VerifyKey.decode(line) for line in lines if line.strip()])
    if as_json:
        print_json({"period": checked.period, "client": checked.client, "checks": list(checked.checks)})
        return
    for check in checked.checks:
        typer.echo(f"✓ {check}")
