"""Recorded rounds whose updates are signed: statements are put into rounds that were recorded without."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from attribution.bundle.manifest import Manifest
from attribution.rounds.reading import RecordedRounds, read_rounds
from deployment.members.recorded_signatures import sent_updates
from deployment.members.signed_updates import SentUpdate, sign_update
from rewards.signing.keys import SigningKey

KEYS = {
    client: SigningKey(f"hospitals/{client}", bytes([number]) * 32)
    for number, client in enumerate(("north", "south", "west"), start=1)
}
AGGREGATOR = SigningKey("hospitals/ledger", bytes(32))


def sign_rounds(folder: Path, keys: Mapping[str, SigningKey] = KEYS) -> RecordedRounds:
    """Let members sign what they sent, where they have a key, and name their keys on the front page."""
    front = json.loads((folder / "rounds.json").read_text())
    for member in front["members"]:
        key = keys.get(member["client"])
        member["signing_key"] = None if key is None else key.public.encode()
    (folder / "rounds.json").write_text(json.dumps(front))
    for sent, _ in sent_updates(read_rounds(folder)):
        key = keys.get(sent.client)
        put_statement(folder, sent, None if key is None else sign_update(sent, key))
    return read_rounds(folder)


def put_statement(folder: Path, sent: SentUpdate, statement: str | None) -> None:
    """Put a statement beside an update, whatever it says."""
    alter_update(folder, sent.round, sent.client, lambda update: update.update(statement=statement))


def alter_update(folder: Path, number: int, client: str, change: Callable[[dict], None]) -> None:
    """Change what a round's document says of a client's update."""
    path = folder / f"round-{number:04d}" / "round.json"
    document = json.loads(path.read_text())
    (update,) = (each for each in document["updates"] if each["client"] == client)
    change(update)
    path.write_text(json.dumps(document))


def statements(recorded: RecordedRounds, client: str) -> dict[str, str]:
    """What a client kept: its statements by file name."""
    return {f"{sent.round}.json": update.statement for sent, update in sent_updates(recorded) if sent.client == client}


def manifest_of(recorded: RecordedRounds, receipts: Mapping[tuple[int, str], str] | None = None) -> Manifest:
    """The manifest that an import makes of rounds, with norms of nothing and files that are not there."""
    nothing = "0" * 64
    rounds = [
        {
            "round": each.round,
            "before_sha256": each.before_sha256,
            "after_sha256": each.after_sha256,
            "residual_norm": 0,
            "updates": [
                {
                    "client": update.client,
                    "declared": update.weight,
                    "weight": update.weight / sum(other.weight for other in each.updates),
                    "norm": 1,
                    "sha256": update.sha256,
                    "statement": update.statement,
                    "receipt": (receipts or {}).get((each.round, update.client)),
                }
                for update in each.updates
            ],
            "missing": [missing.model_dump() for missing in each.missing],
        }
        for each in recorded.rounds
    ]
    clients = [
        {
            "id": member.client,
            "name": member.name,
            "examples": None,
            "weight": 0,
            "kind": "lora",
            "path": f"clients/{member.client}/update.safetensors",
            "sha256": nothing,
            "signing_key": member.signing_key,
        }
        for member in recorded.federation.members
    ]
    document = {
        "consortium": recorded.federation.consortium,
        "base": {"reference": "path:base", "sha256": nothing},
        "round": len(rounds),
        "aggregation": "recorded",
        "global": {"sha256": nothing, "residual_norm": 0},
        "clients": clients,
        "start_norm": 0,
        "rounds": rounds,
    }
    return Manifest.model_validate_json(json.dumps(document))


def altered(manifest: Manifest, number: int, client: str, **changes: object) -> Manifest:
    """The same manifest with something else said of an update; of none where `client` is dropped."""
    document = json.loads(manifest.model_dump_json())
    updates = document["rounds"][number - 1]["updates"]
    (update,) = (each for each in updates if each["client"] == client)
    update.update(changes)
    if not changes:
        updates.remove(update)
    return Manifest.model_validate_json(json.dumps(document))
