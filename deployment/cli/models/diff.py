"""`protoken consortium diff`: what a new round, or another aggregator, changed of each client's part."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from attribution.bundle.bundle import open_bundle
from attribution.bundle.bundle_diff import ClientChange, client_changes
from deployment.cli.options import Json
from deployment.cli.output import print_json, say
from deployment.cli.tables import print_table


def diff(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="Folder of the earlier bundle.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="Folder of the later one.")],
    as_json: Json = False,
) -> None:
    """Show what differs between two bundles: who joined or left, weights, and how far each update went."""
    opened = open_bundle(before), open_bundle(after)
    manifests = [bundle.manifest for bundle in opened]
    changes = client_changes(*opened)
    if as_json:
        hashes = [manifest.global_.sha256 for manifest in manifests]
        rounds = [manifest.round for manifest in manifests]
        clients = [{**asdict(change), "state": change.state} for change in changes]
        print_json({"rounds": rounds, "global_sha256": hashes, "clients": clients})
        return
    one, other = (f"{each.consortium}, round {each.round}, global {each.global_.sha256[:12]}" for each in manifests)
    columns = ("client", "state", "weight", "norm of update", "distance", "cosine")
    print_table(f"{one} → {other}", columns, [_row(change) for change in changes])
    if manifests[0].global_.sha256 == manifests[1].global_.sha256:
        say("both serve the same weights")


def _row(change: ClientChange) -> tuple[str, ...]:
    weights = " → ".join(_figure(weight, ".3f") for weight in change.weights)
    norms = " → ".join(_figure(norm, ".4g") for norm in change.norms)
    return (change.client, change.state, weights, norms, f"{change.distance:.4g}", _figure(change.cosine, ".3f"))


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
