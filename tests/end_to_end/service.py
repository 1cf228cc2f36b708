"""Starting `protoken serve` as a stranger would, and ending it; nothing is left behind."""

from __future__ import annotations

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from deployment.settings import pepper_of
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from tests.waiting import PATIENCE_S, until, until_up

TOO_BUSY = "where this machine is busy, start it again when it is not"
TOLD_EVERY_MS = 6000  # how often Ray's processes tell each other their series: not before each has a new heartbeat


def _own_ports() -> Iterator[int]:
    """Ports that the system gives to nobody who asks for any, as Ray's processes do: each worker's apart, in turn."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    own = range(20_000, 32_000)[worker % 16 :: 16]
    begin = random.randrange(len(own))  # elsewhere than another run of the tests on this machine
    return (own[number % len(own)] for number in itertools.count(begin))


_PORTS = _own_ports()


@dataclass(frozen=True)
class Service:
    """A running service: where it answers, whose keys it knows, and its process."""

    address: str
    metrics: str
    replica_metrics: str
    ledger: str
    application: str
    operator: str
    process: subprocess.Popen[bytes]


def free_port() -> int:
    """A port of loopback that is free, and that nobody is likely to take before a service does."""
    return next(port for port in _PORTS if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def once_booked(running: Service, answer: httpx.Response) -> httpx.Response:
    """The same answer, once its credit is in the ledger: who asks for no attribution has the answer before."""
    if answer.status_code == 200:
        place = f"{running.address}/v1/attributions/{answer.json()['id']}"
        headers = {"Authorization": f"Bearer {running.application}"}
        until(
            lambda: httpx.get(place, headers=headers, timeout=PATIENCE_S).status_code != 202,
            what="the credit of a response",
        )
    return answer


def new_ledger(folder: Path) -> str:
    url = f"sqlite:///{folder / 'ledger.db'}"
    Ledger.prepare(url)
    return url


@contextmanager
def service(
    bundle: Path,
    ledger: str,
    log: Path,
    replica_ledger: str = "",
    ports: tuple[int, int, int] | None = None,
    more: Mapping[str, str] | None = None,
) -> Iterator[Service]:
    """The service; SIGTERM at the end, and SIGKILL to its whole group where that does not do.

    Args:
        bundle: what it serves.
        ledger: where it books.
        log: its output; spool, signing key and pepper lie beside.
        replica_ledger: the setting of that name.
        ports: of the API, of the exporter, and of the replicas' series; free ones when None.
        more: variables of the environment, as PROTOKEN_ENGINE_URL is one.
    """
    port, metrics_port, replica_metrics_port = ports or (free_port(), free_port(), free_port())
    command = [sys.executable, "-m", "deployment.cli", "serve", "--bundle", str(bundle), "--ledger", ledger]
    command += ["--port", str(port), "--metrics-port", str(metrics_port)]
    beside = {name: str(log.with_name(name)) for name in ("spool", "signing_key", "pepper_file")}
    ring = KeyRing(ledger, pepper_of(ledger, Path(beside["pepper_file"])))
    keys = {role: ring.create(role, "test", actor="test") for role in ("application", "operator")}
    settings = beside | {"replica_ledger": replica_ledger, "replica_metrics_port": str(replica_metrics_port)}
    environment = os.environ | {f"PROTOKEN_{name.upper()}": value for name, value in settings.items()}
    environment |= more or {}
    environment["RAY_metrics_report_interval_ms"] = str(TOLD_EVERY_MS)
    process = _started(command, environment, f"http://127.0.0.1:{port}/health", log)
    running = Service(
        f"http://127.0.0.1:{port}",
        f"http://127.0.0.1:{metrics_port}/metrics",
        f"http://127.0.0.1:{replica_metrics_port}/metrics",
        ledger,
        keys["application"],
        keys["operator"],
        process,
    )
    try:
        yield running
    finally:
        _end(process)


def _started(
    command: list[str], environment: Mapping[str, str], health: str, log: Path, attempts: int = 2
) -> subprocess.Popen[bytes]:
    """The service's process once it is healthy; where the machine was too busy, started again, as its error advises."""
    for attempt in range(1, attempts + 1):
        with log.open("ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, env=environment)
        try:
            until_up("the service", health, process, log)
        except BaseException:
            is_over = process.poll() is not None
            _end(process)
            if attempt == attempts or not is_over or TOO_BUSY not in log.read_text(errors="replace"):
                raise
        else:
            break
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def replica_of(running: Service) -> psutil.Process:
    """The process that holds the model."""
    found = []
    for process in psutil.Process(running.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if ":replica" in " ".join(process.cmdline()):
                found.append(process)
    (replica,) = found
    return replica
