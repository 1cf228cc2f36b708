"""The service on two nodes as `configs/cluster/serve.yaml` has it: updated under load, and a node killed under load.

The ledger is PostgreSQL behind PgBouncer in transaction mode, Ray asks for its token, and both nodes share a spool.
"""

import asyncio
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from attribution.bundle.bundle import open_bundle
from deployment.app.proxy import PROXY_MIDDLEWARE, PROXY_VARIABLE
from deployment.health.places import ledger_folder
from deployment.health.signing_key import make_signing_key
from deployment.settings import pepper_of
from deployment.spool.backlog import spooled_tokens
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from rewards.log.checkpoints import latest_checkpoint
from tests.attribution.consortia import base_model, updates, write_consortium
from tests.benchmarks.figures import Figure
from tests.benchmarks.mixed_load import callers
from tests.benchmarks.mixed_load.callers import Caller, Seen
from tests.benchmarks.mixed_load.publishing import Publishing
from tests.benchmarks.mixed_load.verdict import await_bookings, figures_of_books
from tests.benchmarks.serving.client import Server
from tests.deployment.cluster.two_nodes import TwoNodes, two_nodes
from tests.end_to_end.service import free_port
from tests.rewards.conftest import new_database
from tests.rewards.store.pooler import pooled
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.slow
SHIPPED = Path(__file__).parents[3] / "configs" / "cluster" / "serve.yaml"
CALLERS = 4
SOME = 20


@dataclass(frozen=True)
class World:
    """What the tests work on: the nodes, where Ray and the service answer, the configuration, and the spool."""

    nodes: TwoNodes
    ray: httpx.Client
    token: str
    document: dict[str, Any]
    server: Server
    folder: Path

    def deploy(self, **args: Any) -> None:
        """What an operator does: `serve deploy` of a file, with some arguments changed."""
        self.document["applications"][0]["args"].update(args)
        file = self.folder / "serve.yaml"
        file.write_text(yaml.safe_dump(self.document))
        command = [str(Path(sys.executable).with_name("serve")), "deploy", str(file), "-a", str(self.ray.base_url)]
        environment = {"PATH": "/usr/bin:/bin", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        subprocess.run(command, check=True, env=environment, capture_output=True, timeout=PATIENCE_S)

    def running(self, deployment: str) -> dict[str, str]:
        """Replica id -> node, of those of a deployment that run."""
        application = self._application()
        replicas = application.get("deployments", {}).get(deployment, {}).get("replicas", [])
        return {each["replica_id"]: each["node_id"] for each in replicas if each["state"] == "RUNNING"}

    def is_up(self) -> bool:
        """Whether all that was deployed runs."""
        assert not self.refusal(), self.refusal()
        return self._application().get("status") == "RUNNING"

    def refusal(self) -> str:
        """Why what was deployed last is not started; nothing where it is."""
        application = self._application()
        message: str = application["message"] if application.get("status") == "DEPLOY_FAILED" else ""
        return message.strip()

    def faults_of_books(self, seen: Seen) -> list[Figure]:
        """What the books lack or have too much, beside what was seen; one round is served all the time."""
        bundle = open_bundle(Path(self.document["applications"][0]["args"]["bundle"]))
        rounds = Publishing((bundle.manifest.global_.sha256, "0" * 64))
        return [figure for figure in figures_of_books(self.server.ledger, seen, rounds) if not figure.ok]

    def _application(self) -> dict[str, Any]:
        answer = self.ray.get("/api/serve/applications/").raise_for_status().json()
        application: dict[str, Any] = answer["applications"].get("protoken", {})
        return application


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, postgresql: str) -> Iterator[World]:
    """Two nodes, and the service on both."""
    folder, token, model = tmp_path_factory.mktemp("cluster"), secrets.token_hex(16), base_model("llama")
    bundle = write_consortium(folder, model, updates(model))
    dashboard, port = free_port(), free_port()
    with pooled(new_database(postgresql)) as ledger:
        key = _make_secrets(ledger, folder)
        environment = {
            "PROTOKEN_LEDGER": ledger,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
            PROXY_VARIABLE: PROXY_MIDDLEWARE,
            "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        }
        headers = {"Authorization": f"Bearer {token}"}
        with (
            two_nodes(dashboard, environment) as nodes,
            httpx.Client(base_url=f"http://127.0.0.1:{dashboard}", headers=headers, timeout=PATIENCE_S) as ray,
        ):
            server = Server(f"http://127.0.0.1:{port}/v1", "test", key, {}, 0, ledger)
            world = World(nodes, ray, token, _document(folder, bundle, port), server, folder)
            world.deploy()
            until(world.is_up)
            yield world


def test_replicas_run_on_both_nodes_and_ray_asks_for_its_token(world: World):
    """One replica a node, as each has a processor for one; who has no token cannot even ask what is deployed."""
    assert 2 == len(set(world.running("replica").values()))
    assert 401 == httpx.get(f"{world.ray.base_url}/api/serve/applications/", timeout=PATIENCE_S).status_code
    service = world.server.address.removesuffix("/v1")
    assert [200, 404] == [
        httpx.get(f"{service}{path}", timeout=PATIENCE_S).status_code for path in ("/health", "/-/healthz")
    ]


def test_update_under_load_fails_no_request(world: World):
    """`serve deploy` of a changed file exchanges every replica; whoever asks meanwhile notices nothing.

    One that is wrong is refused with the reason, and changes nothing.
    """
    before = {**world.running("replica"), **world.running("ingress")}
    with _load(world, Seen()) as seen:
        world.deploy(max_batch=1)
        until(lambda: bool(world.refusal()))
        reason = world.refusal().splitlines()[-1]
        begun = len(seen.whole)
        until(lambda: len(seen.whole) > begun + SOME)
        world.deploy(max_batch=24)
        until(lambda: not world.refusal())
        until(lambda: not before.keys() & world.running("replica").keys() and world.is_up())
        begun = len(seen.whole)
        until(lambda: len(seen.whole) > begun + SOME)

    assert "'shutdown_timeout_s' is 900, and a replica that is full may need 13312 s" in reason
    assert 2 == len(world.running("replica"))
    assert not before.keys() & world.running("ingress").keys()
    assert [] == seen.odd
    assert [] == [what for what in seen.counts if what == "cut" or what.startswith(("500", "503"))]
    assert seen.counts["409 idempotency_expired"] == seen.counts["given up"]  # whole, while its caller was gone
    await_bookings(world.server.ledger, seen)
    assert [] == world.faults_of_books(seen)


def test_killed_node_loses_and_doubles_nothing(world: World, monkeypatch: pytest.MonkeyPatch):
    """What was seen whole is booked once, credit is tokens × 1 000 000, and the dead replica's spool is taken over.

    A node that comes in its place gets a replica.
    """
    monkeypatch.setattr(callers, "PATIENCE_S", 15.0)
    with closing(Ledger(world.server.ledger)) as ledger:
        spool = ledger_folder(world.folder / "spool", ledger)
        with _load(world, Seen()) as seen:
            until(lambda: len(seen.whole) > SOME and len([*spool.glob("spool-*.jsonl")]) == 2)
            world.nodes.kill()
            begun = len(seen.whole)
            until(lambda: len(seen.whole) > begun + SOME, what=lambda: f"{SOME} whole after {begun}: {seen}")
        await_bookings(world.server.ledger, seen)
        until(lambda: len([*spool.glob("spool-*.jsonl")]) == 1 and spooled_tokens(spool) == {})
        with ledger.database.read() as connection:
            sealed = latest_checkpoint(connection)
    world.nodes.add()
    until(lambda: len(set(world.running("replica").values())) == 2)

    assert [] == world.faults_of_books(seen)
    assert [] == [what for what in seen.odd if "is no refusal of ours" in what]
    assert sealed is not None


@contextmanager
def _load(world: World, seen: Seen) -> Iterator[Seen]:
    """Applications that ask, again and again, until the `with` ends; then what they have under way ends too.

    None waits for another: where one's key is held by what was killed, the others go on.
    """
    ending = threading.Event()

    async def ask(application: Caller) -> None:
        while not ending.is_set():
            await application.call(asyncio.get_running_loop().time() + 1)

    async def ask_all() -> None:
        await asyncio.gather(*(ask(Caller(world.server, seen, number)) for number in range(CALLERS)))

    thread = threading.Thread(target=asyncio.run, args=(ask_all(),))
    thread.start()
    try:
        yield seen
    finally:
        ending.set()
        thread.join()


def _make_secrets(ledger: str, folder: Path) -> str:
    """The ledger, and the files that every machine has; the key of an application."""
    Ledger.prepare(ledger)
    make_signing_key(ledger, None, folder / "signing.key", rotate=False)
    with closing(KeyRing(ledger, pepper_of(ledger, folder / "pepper"))) as ring:
        return ring.create("application", "test", actor="test")


def _document(folder: Path, bundle: Path, port: int) -> dict[str, Any]:
    """The shipped configuration with this machine's places, ports and processors."""
    document: dict[str, Any] = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    document["http_options"] = {"host": "127.0.0.1", "port": port}
    (application,) = document["applications"]
    application["args"] |= {
        "bundle": str(bundle),
        "pepper_file": str(folder / "pepper"),
        "signing_key": str(folder / "signing.key"),
        "spool": str(folder / "spool"),
        "seal_interval_s": 1,
        "cpus_per_replica": 1,
    }
    (replica,) = (each for each in application["deployments"] if each["name"] == "replica")
    replica["autoscaling_config"]["max_replicas"] = 2
    return document
