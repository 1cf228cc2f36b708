"""Servers of others that benchmarks hold ours against: installed apart, started on a free port, and ended."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import until_up

STOP_TIMEOUT_S = 30


class ProgramError(Exception):
    """A program of others cannot be had, or does not start; the message says why."""


def install(what: str, *command: str) -> None:
    """Run a part of an installation.

    Raises:
        ProgramError: it failed.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise ProgramError(f"{what} cannot be had: `{' '.join(command)}` failed: {last}")


@contextmanager
def served(
    what: str, command: Sequence[str], log: Path, timeout_s: float, more: Mapping[str, str]
) -> Iterator[tuple[str, int]]:
    """A server until the end of the `with`: its address, and the process that everything it needs descends from.

    Args:
        what: as messages name it.
        command: what starts it, but for `--host` and `--port`.
        log: file for what it prints.
        timeout_s: how long it may take to answer.
        more: variables of its environment.

    Raises:
        ProgramError: it ended while it started, or did not answer in time.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [*command, "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"} | more
    environment.pop("PYTHONPATH", None)
    with (
        log.open("wb") as output,
        subprocess.Popen(words, stdout=output, stderr=output, env=environment, start_new_session=True) as process,
    ):
        try:
            try:
                until_up(what, f"http://127.0.0.1:{port}/health", process, log, timeout_s)
            except AssertionError as error:
                last = str(error).splitlines()[-1]
                raise ProgramError(f"{what} did not start: {last}; see {log}") from error
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
