"""Ends Ray's agents when the service that started them was killed: by themselves they take a minute, and hold a port.

Runs as a process of its own, by path and with the standard library alone: `guardian.py PID:START ...`. Its input ends
when the service does. It ends no process but those it was given, known by number and start.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

_AGENTS = (b"ray::DashboardAgent", b"ray::RuntimeEnvAgent")
_PROC = Path("/proc")


def start_guardian() -> "subprocess.Popen[bytes] | None":
    """Start a guardian of the agents below this process; None where there are none, or no /proc to find them in."""
    agents = [f"{pid}:{start}" for pid, start in _agents(os.getpid())]
    if not agents:
        return None
    command = [sys.executable, "-I", "-S", __file__, *agents]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603 - our own command


def _agents(ancestor: int) -> list[tuple[int, str]]:
    processes = {int(path.name): _parent_and_start(int(path.name)) for path in _PROC.glob("[0-9]*")}
    below = {ancestor}
    for _ in processes:  # as deep as it may be
        more = {pid for pid, (parent, _start) in processes.items() if parent in below} - below
        if not more:
            break
        below |= more
    return [(pid, processes[pid][1]) for pid in below - {ancestor} if _title(pid).startswith(_AGENTS)]


def _title(pid: int) -> bytes:
    with suppress(OSError):
        return (_PROC / str(pid) / "cmdline").read_bytes()
    return b""


def _parent_and_start(pid: int) -> tuple[int, str]:
    """Of a process: its parent, and when it started, by which another one of that number is told from it."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0, ""
    return int(fields[1]), fields[19]


def _wait_and_end(agents: list[str]) -> None:
    sys.stdin.buffer.read()
    for agent in agents:
        pid, _, start = agent.partition(":")
        if _parent_and_start(int(pid))[1] == start:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends with the service
    _wait_and_end(sys.argv[1:])
