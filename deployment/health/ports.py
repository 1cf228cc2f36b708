"""The ports that a service listens on: free, and no two settings the same. Knows no HTTP."""

import errno
import socket
import time
from collections.abc import Mapping

from deployment.errors import StartError
from deployment.settings import Settings

LOOPBACK = "127.0.0.1"
PORT_PATIENCE_S = 5.0
"""How long a port may still be held by processes of a service that was killed a moment ago."""
_POLL_S = 0.2


def addresses_of(settings: Settings) -> Mapping[str, tuple[str, int]]:
    """Where a service listens, by the setting of the port.

    Raises:
        StartError: two settings name the same port.
    """
    ports = {name: getattr(settings, name) for name in ("port", "metrics_port", "replica_metrics_port")}
    ports = {name: port for name, port in ports.items() if port}
    for name, port in ports.items():
        others = [other for other, number in ports.items() if number == port and other != name]
        if others:
            raise StartError(f"{name} and {others[0]} are both {port}; set one of them to another port")
    return {name: (LOOPBACK if name == "replica_metrics_port" else settings.host, port) for name, port in ports.items()}


def require_ports(settings: Settings) -> None:
    """Refuse ports that are taken, or that two settings name.

    Raises:
        StartError: one is; it is named.
    """
    for setting, (host, port) in addresses_of(settings).items():
        _require_free(setting, host, port)


def _require_free(setting: str, host: str, port: int) -> None:
    """Refuse a port that is taken: Serve's proxy would try it again and again, far from whoever started it."""
    deadline = time.monotonic() + PORT_PATIENCE_S
    while (error := refusal(host, port)) is not None:
        if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
            raise refused_start(setting, host, port, error) from error
        time.sleep(_POLL_S)


def refusal(host: str, port: int) -> OSError | None:
    """Why nobody can listen there now; None where one can."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return error
    return None


def refused_start(setting: str, host: str, port: int, error: OSError) -> StartError:
    """What is said of a port that cannot be listened on."""
    return StartError(f"cannot listen on {host}:{port}: {error.strerror}; set another host or {setting}")
