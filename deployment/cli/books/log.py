"""`protoken ledger seal | checkpoint | proof | bundle-proof`: the ledger's Merkle log, kept and handed out."""

from contextlib import closing
from dataclasses import asdict
from typing import Annotated

import typer

from deployment.cli.books.trusted_keys import checkpoint_document
from deployment.cli.options import AS_SET, Config, Json, KeyFile, LedgerUrl
from deployment.cli.output import print_json
from deployment.health.signing_key import signing_key
from rewards.errors import LogError
from rewards.ledger.ledger import Ledger
from rewards.log import proofs
from rewards.log.checkpoints import latest_checkpoint
from rewards.log.publication_proofs import publication_proof
from rewards.log.sealer import log_origin
from rewards.log.sealer import seal as seal_log


def seal(
    key: KeyFile = AS_SET,
    ledger: LedgerUrl = AS_SET,
    _config: Config = None,
    as_json: Json = False,
) -> None:
    """Put what is new into the Merkle log and sign a checkpoint; the running service does so by itself."""
    with closing(Ledger(ledger)) as book:
        signer = signing_key(key, book)
        sealed = seal_log(book, signer, log_origin(book, signer))
    if as_json:
        shown = None if sealed is None else checkpoint_document(sealed)
        print_json({"sealed": sealed is not None, "checkpoint": shown})
    elif sealed is None:
        typer.echo("nothing is new since the last checkpoint")
    else:
        typer.echo(f"sealed {sealed.origin} at {sealed.size} leaves, root {sealed.root.hex()}")


def checkpoint(ledger: LedgerUrl = AS_SET, _config: Config = None, as_json: Json = False) -> None:
    """Print the latest checkpoint, a signed note to keep: whoever holds it sees if history is ever rewritten."""
    with closing(Ledger(ledger)) as book, book.database.read() as connection:
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
    ledger: LedgerUrl = AS_SET,
    _config: Config = None,
    as_json: Json = False,
) -> None:
    """Print the proof (JSON) that a client's entry of a response is in the books that were signed."""
    del as_json  # a proof is JSON in any case
    with closing(Ledger(ledger)) as book, book.database.read() as connection:
        print_json(proofs.receipt_proof(connection, response, client))


def bundle_proof(
    consortium: Annotated[str, typer.Argument(help="Whose bundle.")],
    round_number: Annotated[
        int | None, typer.Option("--round", min=1, help="Of this round; else the one that answers.")
    ] = None,
    ledger: LedgerUrl = AS_SET,
    _config: Config = None,
    as_json: Json = False,
) -> None:
    """Print the proof (JSON) that a bundle was published: its manifest's hash is in the books that were signed."""
    del as_json  # a proof is JSON in any case
    with closing(Ledger(ledger)) as book, book.database.read() as connection:
        print_json(publication_proof(connection, consortium, round_number))
