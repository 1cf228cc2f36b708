"""A bundle as tables: its clients; of recorded rounds who sent what, what the server did, and who was missing why."""

from collections.abc import Iterator

from attribution.bundle.bundle import Bundle
from attribution.bundle.manifest import Manifest, RoundEntry, UpdateEntry
from deployment.cli.output import print_json, say
from deployment.cli.tables import print_table

_NONE = "–"
_SERVER = "(server)"


def print_bundle(bundle: Bundle, *, as_json: bool) -> None:
    """What a manifest says, as tables or as it is."""
    manifest = bundle.manifest
    if as_json:
        print_json(manifest.model_dump(mode="json"))
        return
    rows = [
        (
            client.id,
            client.name,
            _NONE if client.examples is None else str(client.examples),
            f"{client.weight:.4f}",
            client.kind,
        )
        for client in manifest.clients
    ]
    served = manifest.global_.sha256[:12]
    title = f"{manifest.consortium}: {manifest.base.reference}, round {manifest.round}, global {served}"
    print_table(title, ("client", "name", "examples", "weight", "update"), rows)
    print_rounds(manifest)


def print_rounds(manifest: Manifest) -> None:
    """A row for each update, for what the server did and for who was missing; nothing where no rounds were recorded."""
    if manifest.rounds is None:
        return
    rows = [("0", _SERVER, _NONE, _norm(manifest.start_norm or 0.0), "what training began with, beyond the base")]
    rows = [*(rows if manifest.start_norm else ()), *(row for each in manifest.rounds for row in _rows(each))]
    columns = ("round", "who", "weight", "norm", "remark")
    print_table(f"{manifest.round} recorded rounds: norm of what each changed", columns, rows)
    came = {update.client for each in manifest.rounds for update in each.updates}
    if absent := [client.id for client in manifest.clients if client.id not in came]:
        say(f"never took part: {', '.join(absent)}")
    say(f"norm of global − base that is no client's: {manifest.global_.residual_norm:.4g}")


def _rows(entry: RoundEntry) -> Iterator[tuple[str, str, str, str, str]]:
    number = str(entry.round)
    for update in entry.updates:
        yield number, update.client, f"{update.weight:.4f}", _norm(update.norm), _signatures(update)
    yield number, _SERVER, _NONE, _norm(entry.residual_norm), "besides averaging"
    for absence in entry.missing:
        who = absence.client or (f"node {absence.node}" if absence.node else "somebody")
        yield number, who, _NONE, _NONE, f"missing: {absence.reason}"


def _norm(value: float) -> str:
    return f"{value:.4g}"


def _signatures(update: UpdateEntry) -> str:
    """Which signatures are there; whether they hold, `verify` says."""
    parts = ("signed", update.statement), ("receipt", update.receipt)
    return ", ".join(name for name, text in parts if text is not None)
