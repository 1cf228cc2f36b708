"""The ingress as a Ray Serve deployment: the HTTP surface over the replicas, with what it stands on.

The FastAPI app is built where it runs, after the constructor, so nothing of it is ever pickled.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployment.app.http_app import build_app
from deployment.books.books import Books
from deployment.cluster.core_files import forbid_core_files
from deployment.cluster.loopback import listen_on_own_address
from deployment.gateway.model_router import Models
from deployment.gateway.replicas import HandleEngine
from deployment.health import watched_parts
from deployment.health.faults import Watch
from deployment.health.places import ledger_folder
from deployment.retention.replays import Replays
from deployment.retention.texts import Texts
from deployment.settings import Settings, pepper_of, pepper_path
from deployment.spool.backlog import spooled_tokens
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import require_known
from rewards.signing.keys import VerifyKey
from rewards.store.continuity import Continuity


@serve.ingress()
class Ingress:
    """The HTTP surface over each model's replicas, wrapped as a Serve deployment in `launch`, which may bind more."""

    def __init__(
        self, handles: Mapping[str, DeploymentHandle[Any]], settings: Settings, *_beside: DeploymentHandle[Any]
    ) -> None:
        forbid_core_files()
        listen_on_own_address()
        manifests = watched_parts.manifests_of(settings.bundles)
        self._engine = Models({name: HandleEngine(handle, manifests.get(name)) for name, handle in handles.items()})
        self._settings = settings
        self._ledger = Ledger(settings.ledger)
        self._keys = KeyRing(settings.ledger, pepper_of(settings.ledger, settings.pepper_file))
        folder = ledger_folder(settings.spool, self._ledger)
        self._spooled = spooled_tokens(folder)  # before anything is generated through this ingress
        self._replays = Replays(folder / "replays", settings.replay_window_s)
        self._texts = Texts(settings.texts, settings.texts_window_s) if settings.texts else None
        self._parts = _parts(settings, self._ledger, folder)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve in the process where the app runs."""
        return build_app(
            self._engine,
            Books(self._ledger, self._keys, self._settings.signing_key, self._settings.policy),
            self._replays,
            default_max_tokens=self._settings.default_max_tokens,
            max_tokens_cap=self._settings.max_tokens_cap,
            keep_alive_s=self._settings.keep_alive_s,
            texts=self._texts,
            spooled=self._spooled,
            watch=Watch(self._parts),
            cors_origins=self._settings.cors_origins,
        )


def _parts(settings: Settings, ledger: Ledger, spool: Path) -> dict[str, watched_parts.Check]:
    """What this ingress stands on, as it is now; a signing key that this machine does not have is none."""
    checks = {
        "ledger": Continuity(ledger.database).check,
        "spool": watched_parts.folder("spool", spool, spool / "replays"),
        "pepper": watched_parts.secret("pepper", pepper_path(settings.ledger, settings.pepper_file)),
    }
    if settings.texts is not None:
        checks["texts"] = watched_parts.folder("texts", settings.texts)
    if settings.signing_key.exists():
        checks["signing_key"] = watched_parts.signing_key(
            "signing_key", settings.signing_key, partial(_require_known, ledger)
        )
    return checks


def _require_known(ledger: Ledger, key: VerifyKey) -> None:
    with ledger.database.read() as connection:
        require_known(connection, key)
