"""The service as Serve's own file names it: what a cluster must have is refused by name, and what is built."""

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ray import serve

from deployment.app.cluster import build, cluster_settings, longest_drain_s
from deployment.app.proxy import PROXY_MIDDLEWARE, PROXY_VARIABLE
from deployment.errors import SettingsError, StartError
from deployment.health.signing_key import make_signing_key
from deployment.settings import Settings, pepper_of
from rewards.errors import SignatureError
from rewards.ledger.ledger import Ledger
from tests.attribution.consortia import base_model, updates, write_consortium
from tests.deployment.cluster.names import deployment_names
from tests.rewards.conftest import new_database

ARGS = {
    "bundle": "/srv/bundle",
    "spool": "/srv/spool",
    "signing_key": "/srv/signing.key",
    "pepper_file": "/srv/pepper",
    "cpus_per_replica": 2,
    "max_tokens_cap": 1000,
    "shutdown_timeout_s": 600,
}
LEDGER = {"PROTOKEN_LEDGER": "postgresql://service:secret@host/books"}
ENGINE = {"kind": "openai", "url": "http://127.0.0.1:8001"}


def test_arguments_are_settings_and_the_environment_stands_over_them():
    """As with `configs/serve.yaml`, so that a secret need not stand in a file that Serve writes into its log."""
    settings = cluster_settings(ARGS | {"max_batch": 40}, LEDGER | {"PROTOKEN_MAX_BATCH": "48"})

    assert (LEDGER["PROTOKEN_LEDGER"], 48, 2) == (settings.ledger, settings.max_batch, settings.processors)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"port": 8000}, "'port' is for one machine.*http_options.port"),
        ({"host": "0.0.0.0"}, "'host' is for one machine.*http_options.host"),
        ({"metrics_port": 1}, "'metrics_port' is for one machine.*protoken exporter"),
        ({"replica_metrics_port": 1}, "'replica_metrics_port' is for one machine.*metrics-export-port"),
        ({"replicas": 2}, "'replicas' is for one machine.*autoscaling_config"),
        ({"ledger": "postgresql://a:b@host/books"}, "'ledger' holds a password.*PROTOKEN_LEDGER"),
        ({"ledger": "postgresql://a@host/books?password=b"}, "'ledger' holds a password"),
        ({"replica_ledger": "postgresql://a:b@host/books"}, "'replica_ledger' holds a password"),
        ({"spool": "var/spool"}, "'spool' must be an absolute path"),
        ({"bundle": "var/bundle"}, "'bundle' must be an absolute path"),
        ({"more_bundles": ["/srv/more", "var/more"]}, "'more_bundles' must be an absolute path"),
        ({"more_bundles": "/srv/more, var/more"}, "'more_bundles' must be an absolute path"),
        ({"engine": ENGINE | {"api_key_file": "key"}}, "'engine.api_key_file' must be an absolute path"),
        ({"spool": None}, "'spool' is missing.*shares"),
        ({"signing_key": None}, "'signing_key' is missing.*keys create --signing"),
        ({"pepper_file": None}, "'pepper_file' is missing.*keys create"),
        ({"cpus_per_replica": None}, "'cpus_per_replica' is missing"),
        ({"max_tokens_cap": None}, "'max_tokens_cap' is missing"),
        ({"shutdown_timeout_s": 599}, "'shutdown_timeout_s' is 599.*600 s.*1000 tokens"),
        ({"gpus_per_replica": 2}, "'gpus_per_replica'.*one model on one device"),
        ({"nonsense": 1}, "'nonsense' is not known"),
    ],
)
def test_what_is_not_for_a_cluster_is_refused_by_name(changed: dict[str, Any], named: str):
    """In one line, which `serve status` shows."""
    args = {name: value for name, value in (ARGS | changed).items() if value is not None}

    with pytest.raises(SettingsError, match=named) as raised:
        cluster_settings(args, LEDGER)
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_file_is_no_ledger_of_many_machines():
    """SQLite, which is the default, is refused."""
    with pytest.raises(SettingsError, match="'ledger' must be postgresql://"):
        cluster_settings(ARGS, {})


@pytest.mark.parametrize(("waiting", "seconds"), [(0, 200), (1, 400), (32, 400), (33, 600), (64, 600)])
def test_a_drain_lasts_until_the_last_response_that_waits_has_ended(waiting: int, seconds: float):
    """Those that wait are decoded when those before them have ended, as many at once."""
    settings = Settings(bundle=Path("/b"), max_batch=32, max_waiting=waiting, max_tokens_cap=1000)

    assert seconds == longest_drain_s(settings)


@pytest.fixture
def args(tmp_path: Path, postgresql: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Arguments that are whole: a bundle, the secrets, a ledger on PostgreSQL, and nodes whose environment is right."""
    ledger, model = new_database(postgresql), base_model("llama")
    Ledger.prepare(ledger)
    make_signing_key(ledger, None, tmp_path / "signing.key", rotate=False)
    pepper_of(ledger, tmp_path / "pepper")
    for name, value in (("PROTOKEN_LEDGER", ledger), ("RAY_AUTH_MODE", "token"), (PROXY_VARIABLE, PROXY_MIDDLEWARE)):
        monkeypatch.setenv(name, value)
    names = {"spool": "spool", "pepper_file": "pepper", "signing_key": "signing.key"}
    places = {setting: str(tmp_path / name) for setting, name in names.items()}
    return ARGS | places | {"bundle": str(write_consortium(tmp_path, model, updates(model)))}


def test_what_is_built_is_ingress_replicas_and_a_sealer(args: dict[str, Any]):
    """The ledger is made ready, once, before any replica is started."""
    application = build(args)

    assert isinstance(application, serve.Application)
    assert {"ingress", "replica", "sealer"} == deployment_names(application)
    with closing(Ledger(os.environ["PROTOKEN_LEDGER"])) as ledger:
        assert {"test": {"a": "A", "b": "B", "c": "C"}} == ledger.clients()


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("RAY_AUTH_MODE", "", "RAY_AUTH_MODE=token"),
        ("RAY_AUTH_MODE", "disabled", "RAY_AUTH_MODE=token"),
        (PROXY_VARIABLE, "", f"{PROXY_VARIABLE}={PROXY_MIDDLEWARE}"),
    ],
)
def test_nodes_that_let_strangers_in_are_refused(
    args: dict[str, Any], monkeypatch: pytest.MonkeyPatch, variable: str, value: str, named: str
):
    """A Ray that asks for no token, and proxies that nothing of ours stands in."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(StartError, match=named):
        build(args)


@pytest.mark.parametrize("name", ["pepper_file", "signing_key"])
def test_a_secret_that_is_not_there_is_not_made(args: dict[str, Any], name: str):
    """Each machine would have one of its own."""
    Path(args[name]).unlink()

    with pytest.raises(StartError, match=f"{name} .* is missing on this machine"):
        build(args)
    assert not Path(args[name]).exists()


def test_a_stranger_s_signing_key_is_refused(args: dict[str, Any], postgresql: str):
    """Before a sealer is started again and again for it."""
    other = new_database(postgresql)
    Ledger.prepare(other)
    Path(args["signing_key"]).unlink()
    make_signing_key(other, None, Path(args["signing_key"]), rotate=False)

    with pytest.raises(SignatureError, match="none of this ledger's"):
        build(args)
