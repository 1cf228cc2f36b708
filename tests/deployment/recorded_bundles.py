"""Bundles of recorded rounds as whoever reads their front page finds them: a manifest, and no model beside it."""

import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from deployment.members.signed_updates import SentUpdate, sign_receipt, sign_update
from rewards.ledger.ledger import Ledger
from rewards.signing.keys import SigningKey
from rewards.store import publications

KEY = SigningKey("hospital-net/clinic", bytes([7]) * 32)
AGGREGATOR = SigningKey("hospital-net/ledger", bytes(32))
Document = dict[str, Any]


def digest(*words: object) -> str:
    """A hash of some words."""
    return sha256(repr(words).encode()).hexdigest()


def manifest_document(consortium: str, clients: Sequence[str], rounds: int, seed: str = "") -> Document:
    """A manifest in which the first client signs, and in each round all of them took part with equal weight.

    Norms are 1 for the first client, 2 for the second, and so on; the server's residual is a quarter of their mean.
    """
    weight = 1 / len(clients)
    mean = sum(range(1, len(clients) + 1)) * weight
    entries = [
        {
            "round": number,
            "before_sha256": digest(consortium, seed, number - 1),
            "after_sha256": digest(consortium, seed, number),
            "residual_norm": mean / 4,
            "updates": [
                _update(consortium, number, client, place, weight, seed) for place, client in enumerate(clients)
            ],
            "missing": [],
        }
        for number in range(1, rounds + 1)
    ]
    return {
        "schema_version": 1,
        "consortium": consortium,
        "base": {"reference": "path:base", "sha256": digest("base")},
        "round": rounds,
        "aggregation": "recorded",
        "global": {"path": "global", "sha256": digest(consortium, seed, rounds), "residual_norm": 0.5},
        "clients": [_client(client, weight, KEY if place == 0 else None) for place, client in enumerate(clients)],
        "defences": {"clip_to_median": True, "cap_counts": 2.0, "drop_duplicates": None},
        "start_norm": 0.0,
        "rounds": entries,
    }


def alter(document: Document, number: int, client: str, change: Callable[[Document], object]) -> None:
    """Change what a manifest says of a client's update in a round."""
    (update,) = (each for each in document["rounds"][number - 1]["updates"] if each["client"] == client)
    change(update)


def publish_document(ledger: Ledger, folder: Path, document: Mapping[str, Any], actor: str = "command line") -> Path:
    """Write a manifest into a folder of its own and publish it, as `consortium publish` does once all is checked."""
    folder.mkdir(parents=True)
    content = json.dumps(document).encode()
    (folder / "consortium.json").write_bytes(content)
    with ledger.database.write() as connection:
        publications.publish(
            connection,
            document["consortium"],
            bundle=str(folder),
            model_sha256=document["global"]["sha256"],
            manifest_sha256=sha256(content).hexdigest(),
            round_number=document["round"],
            actor=actor,
        )
    return folder


def _client(client: str, weight: float, key: SigningKey | None) -> Document:
    entry: Document = {
        "id": client,
        "name": client.title(),
        "examples": None,
        "weight": weight,
        "kind": "lora",
        "path": f"clients/{client}/update.safetensors",
        "sha256": digest(client),
    }
    return entry if key is None else entry | {"signing_key": key.public.encode()}


def _update(consortium: str, number: int, client: str, place: int, weight: float, seed: str) -> Document:
    before, content = digest(consortium, seed, number - 1), digest(consortium, seed, number, client)
    sent = SentUpdate(consortium, number, client, before, content, 10.0)
    statement = sign_update(sent, KEY) if place == 0 else None
    return {
        "client": client,
        "declared": 10.0,
        "weight": weight,
        "norm": float(place + 1),
        "sha256": content,
        "statement": statement,
        "receipt": sign_receipt(sent, statement, AGGREGATOR) if place == 0 else None,
    }
