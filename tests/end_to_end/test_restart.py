"""The real service is killed and started again at once on the same ports, and keeps what the pages say of it."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest

from tests.attribution.consortia import base_model, updates, write_consortium
from tests.end_to_end.service import free_port, new_ledger, service

pytestmark = pytest.mark.slow


def _is_loopback(address: str) -> bool:
    found = ip_address(address)
    return found.is_loopback or bool(getattr(found, "ipv4_mapped", None) and found.ipv4_mapped.is_loopback)


def _listening(root: psutil.Process) -> list[tuple[str, str]]:
    """Name of the process and address of every socket that the service's processes listen on."""
    found = []
    for process in [root, *root.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # Ray starts some that end soon
            name, sockets = process.name(), process.net_connections()
            found += [(name, each.laddr.ip) for each in sockets if each.status == psutil.CONN_LISTEN]
    return found


@pytest.fixture
def core_files() -> Iterator[None]:
    """Whoever starts the service would let it leave core files."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, before)


def _core_limits(root: psutil.Process) -> set[str]:
    """How large a core file each of the service's processes may leave."""
    found = set()
    for process in [root, *root.children(recursive=True)]:
        with suppress(FileNotFoundError, ProcessLookupError):  # Ray starts some that end soon
            lines = Path(f"/proc/{process.pid}/limits").read_text().splitlines()
            found |= {line.split()[4] for line in lines if line.startswith("Max core file size")}
    return found


@pytest.mark.usefixtures("core_files")
def test_service_that_was_killed_starts_again_at_once(tmp_path: Path) -> None:
    """No orphan holds a port; every port is loopback's, those between Serve's replicas too; core files are off."""
    model = base_model("llama")
    bundle = write_consortium(tmp_path, model, updates(model))
    ledger, ports = new_ledger(tmp_path), (free_port(), free_port(), free_port())
    with service(bundle, ledger, tmp_path / "serve.log", ports=ports) as first:
        listening = _listening(psutil.Process(first.process.pid))
        cores = _core_limits(psutil.Process(first.process.pid))
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
    with service(bundle, ledger, tmp_path / "serve.log", ports=ports) as second:
        is_up = second.process.poll() is None

    assert is_up
    assert {"0"} == cores
    elsewhere = {name for name, address in listening if not _is_loopback(address)}
    assert len(listening) > 8
    assert set() == elsewhere
