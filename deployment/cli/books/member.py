"""`protoken member keygen | sign | check`: what a member does by itself, with its own key and files, and no ledger."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from attribution.bundle.manifest import MANIFEST_NAME
from attribution.errors import DestinationError
from attribution.files.destinations import prepare_folder, require_own_file, write_file
from attribution.rounds.stored_tensors import read_stored
from deployment.cli.books.trusted_keys import PublicKeys, read_keys, read_text_of
from deployment.cli.options import Json, date, file_to_write
from deployment.cli.output import print_json, say
from deployment.cli.tables import print_table
from deployment.errors import SettingsError
from deployment.members.bundle_front import read_front
from deployment.members.own_updates import OwnUpdate, own_updates
from deployment.members.signed_updates import SentUpdate, sign_update
from rewards.errors import SignatureError
from rewards.files import strict_json
from rewards.files.plain_text import one_line
from rewards.log.publication_proofs import ProvedPublication, verify_publication_proof
from rewards.signing.keys import SigningKey, VerifyKey

app = typer.Typer(
    help="A member's own: its signing key, its signed updates, and whether they are what is credited.",
    no_args_is_help=True,
)
_KeyFile = Annotated[Path, typer.Option("--key", help="File of the member's signing key.")]
_Client = Annotated[str, typer.Option("--client", help="The member's id in the consortium.")]
_Kept = Annotated[
    list[Path] | None,
    typer.Option("--statements", help="Statement that was kept, or a folder of them (*.json); repeat."),
]


@app.command()
def keygen(
    file: Annotated[
        Path, typer.Argument(parser=file_to_write, metavar="FILE", help="Where the key goes; nothing is replaced.")
    ],
    name: Annotated[str, typer.Option("--name", help="Under which name it signs, as in hospital.example/north.")],
) -> None:
    """Make a member's signing key, and print its public half: for the aggregator's list, and for whoever checks."""
    key = SigningKey.generate(name)
    prepare_folder(file.parent)
    key.save(file)
    typer.echo(key.public.encode())


@app.command()
def sign(
    update: Annotated[Path, typer.Argument(metavar="UPDATE", help="The tensors as they are sent (.safetensors).")],
    before: Annotated[
        Path, typer.Option("--before", help="The global model that training began from in this round (.safetensors).")
    ],
    key: _KeyFile,
    consortium: Annotated[str, typer.Option("--consortium", help="In which it is sent.")],
    client: _Client,
    round_number: Annotated[int, typer.Option("--round", min=1, help="In which it is sent.")],
    weight: Annotated[float, typer.Option("--weight", help="What it declares, such as its number of examples.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out", parser=file_to_write, metavar="FILE", help="Where the statement goes: send it along, and keep it."
        ),
    ],
) -> None:
    """Sign an update, for this consortium, round, model and weight alone; a Flower client can do it by itself."""
    if not 0 < weight < float("inf"):
        raise typer.BadParameter("a finite number above 0 is wanted", param_hint="--weight")
    require_own_file(out, lambda content: content.startswith(b'{"before_sha256":'), "a statement of an update")
    sent = SentUpdate(consortium, round_number, client, read_stored(before).sha256, read_stored(update).sha256, weight)
    statement = f"{sign_update(sent, SigningKey.load(key))}\n".encode()
    if out.exists() and out.read_bytes() not in (b"", statement):  # nobody else keeps what was sent
        raise DestinationError(
            f"{out}: is the statement of another update that was signed; keep it, and name a new one"
        )
    prepare_folder(out.parent)
    write_file(out, statement)
    say(f"signed for round {round_number} of {consortium}: {sent.sha256}", soft_wrap=True)


@app.command()
def check(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help=f"Folder of the bundle, or its {MANIFEST_NAME}.")],
    client: _Client,
    own_key: Annotated[Path, typer.Option("--own-key", help="File of the member's own public key.")],
    statements: _Kept = None,
    public_key: PublicKeys = None,
    proof: Annotated[
        Path | None,
        typer.Option("--proof", help="That this bundle was published, by `protoken ledger bundle-proof`."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check offline that what a member sent is what is credited; exit code 1 where anything is to be asked about.

    With --proof, also that this bundle is the one in the signed books, whose keys --public-key names.
    """
    key = _only_key(own_key)
    front = read_front(bundle)
    updates = own_updates(front.manifest, client, key, _read_kept(statements or []))
    publication = None if proof is None else _proved_publication(proof, read_keys(public_key), front.sha256)
    if not updates and publication is None:
        raise SignatureError(
            f"{bundle}: nothing could be compared: it records no update of {client!r}, and no statement was given"
        )
    _print_updates(updates, publication, client, front.sha256, as_json=as_json)
    if wrong := [each for each in updates if each.is_wrong]:
        whole = "; ".join(f"round {each.round}: {each.standing}: {each.reason}" for each in wrong)
        typer.echo(one_line(f"protoken: {bundle}: {client}: {whole}"), err=True)
        raise typer.Exit(1)


def _only_key(file: Path) -> VerifyKey:
    keys = read_keys([file])
    if len(keys) != 1:
        raise SettingsError(f"{file} holds {len(keys)} public keys; the member's own is wanted")
    return keys[0]


def _read_kept(places: list[Path]) -> dict[str, str]:
    files: list[Path] = []
    for place in places:
        within = sorted(place.glob("*.json")) if place.is_dir() else [place]
        if not within:
            raise SettingsError(f"{place} holds no statement, a file *.json: nothing could be compared")
        files += within
    return {str(file): read_text_of(file).strip() for file in files}


def _proved_publication(proof: Path, keys: list[VerifyKey], manifest_sha256: str) -> ProvedPublication:
    if not keys:
        raise typer.BadParameter("give the ledger's public key by --public-key FILE: a proof holds for who knows one")
    try:
        document = strict_json.load(read_text_of(proof))
    except ValueError as error:
        raise SettingsError(f"{proof} holds no JSON: {error}") from error
    published = verify_publication_proof(document, keys, keys[0].name)
    if published.manifest_sha256 != manifest_sha256:
        raise SignatureError(
            f"{proof}: proves that a bundle with the manifest {published.manifest_sha256} was published, and this one's"
            f" is {manifest_sha256}"
        )
    return published


def _print_updates(
    updates: list[OwnUpdate], published: ProvedPublication | None, client: str, manifest_sha256: str, *, as_json: bool
) -> None:
    is_whole = not any(each.is_wrong for each in updates)
    if as_json:
        proved = None if published is None else {"round": published.round, "at_us": published.at_us}
        shown = [asdict(each) for each in updates]
        print_json({"ok": is_whole, "manifest_sha256": manifest_sha256, "updates": shown, "published": proved})
        return
    rows = [
        (str(each.round), each.standing, "–" if each.weight is None else f"{each.weight:.4f}", each.reason)
        for each in updates
    ]
    print_table(f"what {client} sent", ("round", "standing", "weight", "remark"), rows, texts=(1, 3))
    if published is not None:
        say(f"published {date(published.at_us)} as round {published.round}: in the signed books")
