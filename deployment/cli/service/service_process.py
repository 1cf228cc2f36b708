"""A service in a process of its own, up for as long as a `with` lasts, which leaves no process behind.

In a session of its own too: Ctrl-C in the terminal then reaches whoever started it, who ends it once and in order.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from deployment.errors import StartError
from deployment.settings import ENVIRONMENT_PREFIX, Settings

_START_TIMEOUT_S = 600  # it ends by itself where something is wrong; a slow machine takes minutes
_STOP_TIMEOUT_S = 60
_PORTS = {name: Settings.model_fields[name].default for name in ("port", "metrics_port", "replica_metrics_port")}
"""Where the parts listen if nobody else does: what the Prometheus of `configs/` looks for."""


@dataclass(frozen=True)
class ServiceApart:
    """A service that answers.

    Attributes:
        address: of its HTTP API, without a path.
        metrics: where the ledger's series and the replicas' are scraped.
        process: which runs it.
        log: what it prints.
    """

    address: str
    metrics: tuple[str, str]
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def console(self) -> str:
        """Where the console is."""
        return f"{self.address}/console"

    def stay(self) -> None:
        """Return at Ctrl-C.

        Raises:
            StartError: the service ended by itself.
        """
        try:
            self.process.wait()
        except KeyboardInterrupt:
            return
        raise StartError(f"the service ended; see {self.log}")


@contextmanager
def service_apart(settings: Mapping[str, str], log: Path) -> Iterator[ServiceApart]:
    """The service on free ports of loopback, once it answers; ended after the responses under way, unless by Ctrl-C.

    Args:
        settings: of the service, as in `configs/serve.yaml`, but for ports.
        log: file for what it prints.

    Raises:
        StartError: it ended while it started, or did not answer in time.
    """
    ports = {name: _free_port(port) for name, port in _PORTS.items()}
    values = {**settings, **{name: str(port) for name, port in ports.items()}}
    environment = os.environ | {f"{ENVIRONMENT_PREFIX}{name.upper()}": value for name, value in values.items()}
    environment["PROTOKEN_CONFIG"] = ""  # another service's
    command = [sys.executable, "-m", "deployment.cli", "serve"]
    with (
        log.open("wb") as output,
        subprocess.Popen(  # noqa: S603 - our own command
            command, stdout=output, stderr=output, env=environment, start_new_session=True
        ) as process,
    ):
        addresses = [f"http://127.0.0.1:{port}" for port in ports.values()]
        running = ServiceApart(addresses[0], (f"{addresses[1]}/metrics", f"{addresses[2]}/metrics"), process, log)
        try:
            _wait_until_up(running)
            yield running
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)  # with the one that ends it a second signal: responses are cut
            raise
        finally:
            _end(process)


def _free_port(wanted: int) -> int:
    """The wanted port of loopback, or another one where that is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            number: int = probe.getsockname()[1]
            return number
    raise StartError("no port of 127.0.0.1 is free")


def _wait_until_up(running: ServiceApart) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if running.process.poll() is not None:
            raise StartError(f"the service ended while it started; see {running.log}")
        try:
            if httpx.get(f"{running.address}/health", timeout=5).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    raise StartError(f"the service did not answer within {_START_TIMEOUT_S} s; see {running.log}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask it to stop; where that takes too long, or is interrupted by another Ctrl-C, end its whole group."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_TIMEOUT_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        os.killpg(process.pid, signal.SIGKILL)
