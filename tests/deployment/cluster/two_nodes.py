"""A Ray cluster of two nodes on this machine, in a process of its own; one of them can be killed as a machine dies.

`python -m tests.deployment.cluster.two_nodes PORT` starts them, with Ray's dashboard on that port, and prints a line
once both are there. A line on its input, `kill` or `add`, kills the second node with all that runs on it, or starts
another one, and is answered by a line; the end of its input ends all. Both nodes listen on loopback alone.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil

import deployment  # noqa: F401 - before Ray, which then listens on loopback

STOP_TIMEOUT_S = 60
STORE_BYTES = 100 * 2**20


class TwoNodes:
    """The cluster, seen from the test."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._hear("up")

    def kill(self) -> None:
        """Kill every process of the second node at once."""
        self._tell("kill")

    def add(self) -> None:
        """Start a node in its place."""
        self._tell("add")

    def _tell(self, word: str) -> None:
        assert self._process.stdin is not None
        print(word, file=self._process.stdin, flush=True)
        self._hear(word)

    def _hear(self, word: str) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip() == word:
                return
        raise AssertionError(f"the cluster ended before it said {word!r}")


@contextmanager
def two_nodes(dashboard_port: int, environment: Mapping[str, str]) -> Iterator[TwoNodes]:
    """The cluster, for as long as the `with` lasts; nothing of it is left.

    Args:
        dashboard_port: where Ray takes configurations of Serve.
        environment: of both nodes, beside this process's own.
    """
    command = [sys.executable, "-m", "tests.deployment.cluster.two_nodes", str(dashboard_port)]
    pipe, variables = subprocess.PIPE, os.environ | environment
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, env=variables, start_new_session=True
    ) as process:
        try:
            yield TwoNodes(process)
        finally:
            _end(process)


def _end(process: "subprocess.Popen[str]") -> None:
    """Let the cluster end in order; whatever of it is there then is killed."""
    family = psutil.Process(process.pid).children(recursive=True)
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    for each in family:
        if each.is_running():
            each.kill()


def _family(node: Any) -> list[psutil.Process]:
    """Every process of a node."""
    roots = [psutil.Process(info.process.pid) for infos in node.all_processes.values() for info in infos]
    return [process for root in roots for process in (root, *root.children(recursive=True))]


def main() -> None:
    """The process of its own."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - this process alone needs it

    usual = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "node_ip_address": "127.0.0.1"}
    head = {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": int(sys.argv[1])}
    cluster = Cluster(initialize_head=True, head_node_args=usual | head)
    second = cluster.add_node(**usual)
    print("up", flush=True)
    for line in sys.stdin:
        if line.strip() == "kill":
            for process in _family(second):
                process.kill()
            cluster.worker_nodes.discard(second)
        elif line.strip() == "add":
            second = cluster.add_node(**usual)
        print(line.strip(), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
