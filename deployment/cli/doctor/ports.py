"""A port of the service: free, or held by one that runs, which is asked who it is."""

import errno
import http.client
import json
from contextlib import closing

from deployment.errors import StartError
from deployment.health.ports import LOOPBACK, refusal, refused_start

ANSWER_S = 5.0
"""How long whoever holds a port may take to say who he is."""
_EVERY_ADDRESS = {"", "0.0.0.0", "::"}  # noqa: S104 - not listened on, but asked at loopback
_SERIES = {"metrics_port": ("protoken_", "its exporter"), "replica_metrics_port": ("ray_", "its replicas' series")}


def look_at_port(setting: str, host: str, port: int, *, is_up: bool) -> str:
    """Where the service listens.

    Args:
        setting: of the port.
        host: where.
        port: its number.
        is_up: whether somebody has the API's port. Where nobody has, a service that holds another port is another one.

    Raises:
        StartError: somebody else listens there, or nobody may.
    """
    error = refusal(host, port)
    if error is None:
        return f"{host}:{port} is free"
    holder = _holder_of(setting, host, port) if error.errno == errno.EADDRINUSE else None
    if holder is None:
        raise refused_start(setting, host, port, error)
    if not is_up:
        raise StartError(
            f"{host}:{port} is held by a protoken service whose API is not at this one's port: {holder}; set another "
            f"{setting}, unless this one starts or stops just now"
        )
    return f"{host}:{port} is held by a protoken service that runs: {holder}"


def _holder_of(setting: str, host: str, port: int) -> str | None:
    """Which part of a service answers there; None where somebody else does, or nobody."""
    where = LOOPBACK if host in _EVERY_ADDRESS else host
    try:
        with closing(http.client.HTTPConnection(where, port, timeout=ANSWER_S)) as connection:
            connection.request("GET", "/health" if setting == "port" else "/metrics")
            said = connection.getresponse().read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return None
    if setting != "port":
        prefix, part = _SERIES[setting]
        return part if any(line.startswith(prefix) for line in said.splitlines()) else None
    try:
        health = json.loads(said)
    except (ValueError, RecursionError):
        return None
    if not isinstance(health, dict) or not {"status", "parts"} <= health.keys():
        return None
    return f"its API, whose health is {health['status']}"
