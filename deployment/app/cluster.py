"""The service on a cluster of Ray's: Serve's configuration file names `deployment.app.cluster:build`.

`protoken serve` starts a Ray of its own and says where it listens. A cluster is its operator's, who starts Ray, its
proxies and as many replicas as he likes by Ray's own files; here is checked, in one line each, what he must have seen
to: what would let strangers in, lose receipts, cut streams, or leave each machine with a secret of its own. Knows
neither routes nor scores.
"""

import math
import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from ray import serve

from deployment.app.launch import build_graph, build_scorer_graph, prepare
from deployment.app.proxy import PROXY_MIDDLEWARE, PROXY_VARIABLE
from deployment.app.sealing import LogSealer
from deployment.errors import SettingsError, StartError
from deployment.health.signing_key import signing_key
from deployment.settings import Settings, settings_of, url_without_secrets, values_given
from rewards.ledger.ledger import Ledger

AUTH_VARIABLE = "RAY_AUTH_MODE"
SLOWEST_TOKEN_S = 0.2
"""How long a token of one stream may take while every place is taken: slower than most people read."""
_ELSEWHERE = {
    "host": "http_options.host of the file",
    "port": "http_options.port of the file",
    "metrics_port": "`protoken exporter`, which runs apart,",
    "replica_metrics_port": "--metrics-export-port of `ray start`",
    "replicas": "num_replicas or autoscaling_config of the file's deployment `replica`",
}
_PATHS = ("bundle", "spool", "signing_key", "pepper_file", "policy", "texts")
_NEEDED = {
    "spool": "a folder that every machine shares, or that comes back with its machine",
    "signing_key": "a file that is the same on every machine, made by `protoken keys create --signing`",
    "pepper_file": "a file that is the same on every machine, made by `protoken keys create`",
    "cpus_per_replica": "a number, as machines differ in how many processors they have",
    "max_tokens_cap": "a number, as a replica that stops waits for its longest response",
}


def build(args: dict[str, Any]) -> serve.Application:
    """The application, called by Serve on one of the nodes whenever its configuration changes.

    Args:
        args: settings, as in `configs/serve.yaml`; over them `PROTOKEN_<NAME>` of the node's environment.

    Raises:
        SettingsError: a setting is missing, unknown, out of range, or not for a cluster.
        StartError: the nodes' environment is not as it must be, or a secret or folder is missing on this one.
        BundleError, LedgerError, KeyRingError, SignatureError, PolicyError: as `deployment.app.launch.run`.
    """
    settings = cluster_settings(args, os.environ)
    _require_environment(os.environ)
    for name in ("pepper_file", "signing_key"):
        _require_file(name, getattr(settings, name))
    prepare(settings)
    with closing(Ledger(settings.ledger)) as ledger:
        signing_key(settings.signing_key, ledger)  # refused here, not by a sealer that Serve would start again
    sealer = serve.deployment(LogSealer).options(name="sealer", ray_actor_options={"num_cpus": 0})
    return build_graph(settings, sealer.bind(settings))


def build_scorers(args: dict[str, Any]) -> serve.Application:
    """The scorers of the same settings, an application named `protoken-scorers` in the same file.

    Raises:
        SettingsError: as `build`, or there are to be none.
        StartError: the nodes' environment is not as it must be.
    """
    settings = cluster_settings(args, os.environ)
    _require_environment(os.environ)
    if not settings.scorers:
        raise SettingsError("setting 'scorers' is 0: leave the application of the scorers out, or say how many")
    return build_scorer_graph(settings)


def cluster_settings(args: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Settings that are good on many machines.

    Raises:
        SettingsError: one is missing, unknown, out of range, or not for a cluster; it is named.
    """
    for name, place in _ELSEWHERE.items():
        if name in args:
            raise SettingsError(f"setting {name!r} is for one machine; on a cluster {place} says it")
    for name in ("ledger", "replica_ledger"):
        _require_no_password(name, args.get(name))
    values = values_given(args, environment)
    settings = settings_of(values)
    _require_absolute(values)
    if settings.ledger.startswith("sqlite:"):
        raise SettingsError("setting 'ledger' must be postgresql://…, as an SQLite file is for one machine")
    for name, what in _NEEDED.items():
        if name not in values:
            raise SettingsError(f"setting {name!r} is missing: on a cluster it is {what}")
    _require_patience(settings)
    return settings


def longest_drain_s(settings: Settings) -> float:
    """How long a replica that takes nothing new may have to do: its last waiting response comes after all others."""
    rounds = 1 + math.ceil(settings.max_waiting / settings.max_batch)
    return (settings.max_tokens_cap or 0) * SLOWEST_TOKEN_S * rounds


def _require_absolute(values: Mapping[str, Any]) -> None:
    """Refuse a path that each node would begin in a folder of its own."""
    engine, several = values.get("engine"), values.get("more_bundles", ())
    paths = [(name, values[name]) for name in _PATHS if values.get(name) is not None]
    paths += [("more_bundles", each) for each in (several.split(",") if isinstance(several, str) else several)]
    if isinstance(engine, Mapping) and engine.get("api_key_file") is not None:
        paths.append(("engine.api_key_file", engine["api_key_file"]))
    for name, path in paths:
        if not Path(str(path).strip()).is_absolute():
            raise SettingsError(f"setting {name!r} must be an absolute path, as nodes run in folders of their own")


def _require_patience(settings: Settings) -> None:
    """Refuse to stop replicas, as every update and every smaller load does, while they still answer."""
    needed = longest_drain_s(settings)
    if settings.shutdown_timeout_s < needed:
        raise SettingsError(
            f"setting 'shutdown_timeout_s' is {settings.shutdown_timeout_s:g}, and a replica that is full may need "
            f"{needed:g} s to end its responses, of {settings.max_tokens_cap} tokens at {SLOWEST_TOKEN_S:g} s each: "
            "raise it, or lower max_tokens_cap or max_waiting"
        )


def _require_no_password(name: str, url: object) -> None:
    """Refuse a URL that may hold a password: in its login, among its options, or in an odd place."""
    shown = url_without_secrets(url) if isinstance(url, str) and "://" in url else ""
    if "***" in shown or shown == "…" or "password=" in str(url):
        raise SettingsError(
            f"setting {name!r} holds a password, and Serve writes the arguments of an application into its log: give "
            f"it by PROTOKEN_{name.upper()} in every node's environment, or the password by PGPASSWORD or ~/.pgpass"
        )


def _require_environment(environment: Mapping[str, str]) -> None:
    """Refuse a cluster on which anybody who reaches a port of Ray's can run code, and so book credit.

    Raises:
        StartError: a variable is not as every node must have it.
    """
    if environment.get(AUTH_VARIABLE, "").lower() != "token":
        raise StartError(
            f"whoever reaches a port of this Ray can run code in it: set {AUTH_VARIABLE}=token, and one "
            "RAY_AUTH_TOKEN, in the environment of every node"
        )
    if environment.get(PROXY_VARIABLE) != PROXY_MIDDLEWARE:
        raise StartError(
            f"Serve's proxies would answer without what stands in front of the service: set {PROXY_VARIABLE}="
            f"{PROXY_MIDDLEWARE} in the environment of every node"
        )


def _require_file(name: str, path: Path | None) -> None:
    """Refuse to go on without a secret, as each machine would make one of its own."""
    if path is None or not path.is_file():
        raise StartError(f"{name} {path} is missing on this machine; it must be the same file on every one")
