"""`protoken consortium build | verify | show`; `import`, `diff`, and what puts in service are beside this module."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from attribution.bundle.bundle import open_bundle, verify_bundle
from attribution.bundle.replacement import require_bundle_place
from attribution.bundle.suspicions import suspicions
from attribution.training.aggregation import Defences
from attribution.training.federate import Federation
from attribution.training.recipe import load_recipe
from deployment.cli.books.trusted_keys import read_keys
from deployment.cli.models.bundle_table import print_bundle
from deployment.cli.models.diff import diff
from deployment.cli.models.importing import import_bundle
from deployment.cli.models.publish import publish_bundle, rollback, rounds
from deployment.cli.options import Json
from deployment.cli.output import print_json, say
from deployment.cli.progress import ProgressBar
from deployment.cli.tables import print_table
from deployment.members.signatures import signature_problems, unsigned_updates
from rewards.files.plain_text import one_line

app = typer.Typer(help="Build, import and check the consortium on disk, and put it in service.", no_args_is_help=True)
_Out = Annotated[
    Path, typer.Option("--out", help="Folder of the bundle; an older bundle there is replaced, nothing else.")
]
_BundleFolder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of the bundle.")]
_AggregatorKeys = Annotated[
    list[Path] | None,
    typer.Option("--public-key", help="The aggregator's public key: check its receipts for updates, too; repeat."),
]


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
    # The frozen blocks run before the federation is asked to write.
    require_bundle_place(out, chosen.base, chosen.consortium)
    with ProgressBar() as progress, Federation(chosen, progress) as federation:
        bundle = federation.run(out)
    for remark in federation.remarks:
        typer.echo(one_line(remark), err=True)
    print_bundle(bundle, as_json=as_json)


app.command("import")(import_bundle)


@app.command()
def verify(bundle: _BundleFolder, public_key: _AggregatorKeys = None, as_json: Json = False) -> None:
    """Check every hash and recompute global = base + Σ D_i + residual; exit code 1 names what disagrees.

    Of recorded rounds, what they claim is held against what is in the bundle, and against what members signed. Warnings
    name members whose updates look scaled, copied, sent again or empty, or are not signed; they do not change the exit
    code.
    """
    opened = open_bundle(bundle)
    verification, signed = verify_bundle(opened), signature_problems(opened.manifest, read_keys(public_key))
    problems = [*verification.problems, *signed]
    warnings = [
        *suspicions(opened),
        *(f"client {client!r} did not sign" for client in sorted(unsigned_updates(opened.manifest))),
    ]
    if as_json:
        print_json(
            {
                "ok": not problems,
                "parameters": verification.parameters,
                "update_norm": verification.update_norm,
                "residual_norm": verification.residual_norm,
                "client_norms": dict(verification.client_norms),
                "problems": problems,
                "warnings": warnings,
            }
        )
    else:
        rows = [(client, f"{norm:.6g}") for client, norm in verification.client_norms.items()]
        print_table(f"{bundle}: {verification.parameters} parameters", ("client", "norm of its update"), rows)
        say(f"norm of global − base: {verification.update_norm:.6g}; of the residual: {verification.residual_norm:.3g}")
        for warning in warnings:
            say(f"warning: {warning}", style="yellow")
        say("verified" if not problems else "")
    if problems:
        typer.echo(one_line(f"protoken: {bundle}: {'; '.join(problems)}"), err=True)
        raise typer.Exit(1)


@app.command()
def show(bundle: _BundleFolder, as_json: Json = False) -> None:
    """Show the manifest of a bundle, after checking its hashes; with its rounds, where they were recorded."""
    print_bundle(open_bundle(bundle), as_json=as_json)


app.command()(diff)
app.command("publish")(publish_bundle)
app.command()(rollback)
app.command()(rounds)


def _given_options(options: Mapping[str, object]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
