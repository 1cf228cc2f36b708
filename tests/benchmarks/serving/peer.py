"""`transformers serve`, of the version that is installed here, in an environment of its own that is made once.

Of its own, since what it needs to serve would move our pins.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import httpx

from tests.benchmarks.serving.client import Server
from tests.benchmarks.serving.record import MODES

OPTIONS = dict(zip(MODES, (["--continuous-batching", "--cb-max-memory-percent", "0.2"], []), strict=True))
"""Its cache may have a fifth of the free memory: gibibytes, where 32 streams of this model need a few hundred MiB."""
START_TIMEOUT_S = 300
STOP_TIMEOUT_S = 30


class PeerError(Exception):
    """The peer cannot be had; the message says why, and what to do."""


def peer_program(folder: Path) -> Path:
    """The program in its environment, which is made where it is not there yet.

    Raises:
        PeerError: it cannot be installed.
    """
    program, ready = folder / "bin" / "transformers", folder / f".ready-{version('transformers')}"
    if not ready.exists():
        torch = version("torch").partition("+")[0]
        wanted = (f"torch=={torch}", f"transformers[serving]=={version('transformers')}")
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        for each in wanted:
            _run(str(folder / "bin" / "pip"), "install", "--quiet", each)
        ready.touch()
    return program.absolute()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise PeerError(f"the peer cannot be had: `{' '.join(command)}` failed: {last}")


@contextmanager
def peer_service(program: Path, weights: Path, mode: str, dtype: str, log: Path) -> Iterator[Server]:
    """The peer on a free port of loopback.

    Args:
        program: as `peer_program` gives it.
        weights: folder of the model.
        mode: one of `MODES`.
        dtype: as torch names it.
        log: file for what it prints.

    Raises:
        PeerError: it ended while it started, or did not answer in time.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(program), "serve", str(weights), *OPTIONS[mode], "--device", "cpu", "--dtype", dtype]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True) as process,
    ):
        try:
            _wait_until_up(f"http://127.0.0.1:{port}/health", process, log)
            yield Server(f"http://127.0.0.1:{port}/v1", str(weights), "none", {}, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _wait_until_up(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            last = (log.read_text().strip().splitlines() or ["it printed nothing"])[-1]
            raise PeerError(f"the peer ended while it started: {last}")
        try:
            if httpx.get(address, timeout=5).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.3)
    raise PeerError(f"the peer did not answer within {START_TIMEOUT_S} s; see {log}")
