"""A vLLM that serves the weights of a bundle on a free port of loopback."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.benchmarks.serving.client import Server
from tests.benchmarks.vllm.environment import VllmError

NAME = "bundle"
START_TIMEOUT_S = 600
STOP_TIMEOUT_S = 30
CONTEXT = 2048


@contextmanager
def vllm_service(program: Path, weights: Path, dtype: str, log: Path, *, quick_start: bool = False) -> Iterator[Server]:
    """It, until the end of the `with`; nothing that was asked before is found in a cache.

    Args:
        program: as `vllm_program` gives it.
        weights: folder of the model.
        dtype: as torch names it.
        log: file for what it prints.
        quick_start: whether it compiles nothing, and is slower.

    Raises:
        VllmError: it ended while it started, or did not answer in time.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(program), "serve", str(weights.absolute()), "--served-model-name", NAME, "--dtype", dtype]
    command += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(CONTEXT)]
    command += ["--no-enable-prefix-caching", *["--enforce-eager"] * quick_start]
    environment = os.environ | {
        "PATH": f"{program.parent}:{os.environ.get('PATH', '')}",
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_NO_USAGE_STATS": "1",
    }
    environment.pop("PYTHONPATH", None)
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True) as process,
    ):
        try:
            _wait_until_up(f"http://127.0.0.1:{port}/health", process, log)
            usage = {"stream_options": {"include_usage": True}}
            yield Server(f"http://127.0.0.1:{port}/v1", NAME, "none", usage, process.pid)
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
            last = (log.read_text(errors="replace").strip().splitlines() or ["it printed nothing"])[-1]
            raise VllmError(f"vLLM ended while it started: {last}")
        try:
            if httpx.get(address, timeout=5).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise VllmError(f"vLLM did not answer within {START_TIMEOUT_S} s; see {log}")
