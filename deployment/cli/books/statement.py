"""`protoken statement issue | show | verify`: each client's signed statement of a period, and its check offline."""

import csv
import io
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from attribution.files.destinations import prepare_folder, require_makeable, require_own_file, write_file
from deployment.books import statement_page
from deployment.cli.books.trusted_keys import read_keys
from deployment.cli.options import AS_SET, Config, Json, KeyFile, LedgerUrl
from deployment.cli.output import print_json
from deployment.cli.tables import print_table
from deployment.errors import SettingsError
from deployment.health.signing_key import signing_key
from rewards import statements
from rewards.credit import canonical_bytes
from rewards.errors import SignatureError, StatementError
from rewards.files.plain_text import one_line
from rewards.files.strict_json import JsonObject
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import log_origin, seal

app = typer.Typer(help="Issue and check clients' statements.", no_args_is_help=True)


class Form(StrEnum):
    """How a statement is written: only JSON is signed and can be verified."""

    JSON = "json"
    CSV = "csv"
    HTML = "html"


_FORMS: dict[Form, Callable[[JsonObject], bytes]] = {
    Form.JSON: canonical_bytes,
    Form.CSV: lambda document: statement_page.table(document).encode(),
    Form.HTML: lambda document: statement_page.page(document).encode(),
}
_File = Annotated[Path, typer.Argument(metavar="FILE", help="The statement (JSON).")]


@app.command()
def issue(
    period: Annotated[str, typer.Argument(metavar="PERIOD", help="Name of a final period.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for one file a client; made when missing.")],
    form: Annotated[
        list[Form] | None,
        typer.Option("--format", help="json is what can be verified; csv its money; html a page to print. Repeat."),
    ] = None,
    key: KeyFile = AS_SET,
    ledger: LedgerUrl = AS_SET,
    _config: Config = None,
) -> None:
    """Seal the log, and write the signed statement of every client, also of those who get nothing."""
    require_makeable(out)
    book = Ledger(ledger)
    signer = signing_key(key, book)
    seal(book, signer, log_origin(book, signer))
    with book.database.read() as connection:
        clients = statements.clients(connection, period)
        if not clients:
            raise StatementError(
                f"there is no statement of period {period!r}: statements are written when a period becomes final"
            )
        documents = {client: statements.issue(connection, period, client, signer) for client in clients}
    prepare_folder(out)
    wanted = [(client, each) for client in documents for each in form or [Form.JSON]]
    for client, each in wanted:  # all of them before the first is written
        own = _earlier(each, documents[client])
        require_own_file(out / f"{client}.{each}", own, f"a statement of {client!r} of period {period!r}")
    for client, each in wanted:
        file = out / f"{client}.{each}"
        write_file(file, _FORMS[each](documents[client]))
        typer.echo(file)


@app.command()
def show(
    what: Annotated[str, typer.Argument(metavar="FILE|PERIOD", help="The statement (JSON), or a period and CLIENT.")],
    client: Annotated[str | None, typer.Argument(metavar="CLIENT", help="Whose statement of the period.")] = None,
    key: KeyFile = AS_SET,
    ledger: LedgerUrl = AS_SET,
    _config: Config = None,
    as_json: Json = False,
) -> None:
    """Show what a statement says, of a file or as it is in the ledger; checks nothing."""
    document = _load(Path(what)) if client is None else _issue_document(what, client, key, ledger)
    if as_json:
        print_json(document)
        return
    try:
        print_table(statement_page.title(document), ("", ""), statement_page.rows(document))
    except (KeyError, TypeError, ValueError) as error:
        raise SignatureError(f"{what} is no statement: {error!r} is missing or has another form") from error


@app.command()
def verify(
    file: _File,
    public_key: Annotated[Path, typer.Option("--public-key", help="File with the ledger's public keys, one a line.")],
    origin: Annotated[
        str | None, typer.Option("--origin", help="Name of the ledger; only where its keys were made under another.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a statement with the public key alone: no ledger, no network. Says what it checked."""
    document = _load(file)
    keys = [replace(key, origin=origin) for key in read_keys([public_key])]
    checked = statements.verify(document, keys, origin)
    if as_json:
        print_json({"period": checked.period, "client": checked.client, "checks": list(checked.checks)})
        return
    for check in checked.checks:
        typer.echo(one_line(f"✓ {check}"))


def _issue_document(period: str, client: str, key: Path, url: str) -> JsonObject:
    with closing(Ledger(url)) as book:
        signer = signing_key(key, book)
        with book.database.read() as connection:
            return statements.issue(connection, period, client, signer)


_OF_STATEMENT = ("period", "client", "settlement_sha256")
"""By which a statement is known: another ledger may have clients and periods of the same names."""


def _earlier(form: Form, document: JsonObject) -> Callable[[bytes], bool]:
    """Whether a file is an earlier issue of the same statement; another's is kept, as somebody may need it."""

    def is_own(content: bytes) -> bool:
        written = _FORMS[form](document)
        if form is Form.CSV:  # its money is final; whose it is was not told once
            rows = _rows(written)
            return _rows(content) in (rows, [row[:3] for row in rows])
        if form is Form.HTML:  # a page differs in its signature alone
            is_its_settlement_s = str(document["settlement_sha256"]).encode() in content
            return is_its_settlement_s and content.split(b"<body>")[0] == written.split(b"<body>")[0]
        try:
            stored = json.loads(content)
        except (ValueError, RecursionError):
            return False
        return isinstance(stored, dict) and all(stored.get(key) == document[key] for key in _OF_STATEMENT)

    return is_own


def _rows(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(errors="replace"))))


def _load(file: Path) -> JsonObject:
    try:
        return statements.load(file.read_bytes())
    except OSError as error:
        raise SettingsError(f"statement {file} cannot be read: {error.strerror}") from error
    except SignatureError as error:
        raise SignatureError(f"{file}: {error}") from error
