"""The guardian of Ray's agents: it ends them with the service, and nobody else."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from deployment.cluster import guardian
from tests.waiting import PATIENCE_S, until


def sleeper(title: str) -> "subprocess.Popen[bytes]":
    """A process that calls itself so."""
    return subprocess.Popen(["bash", "-c", f"exec -a {title} sleep 600"])


@pytest.fixture
def processes() -> Iterator[list["subprocess.Popen[bytes]"]]:
    """An agent and another process, both children of this one."""
    started = [sleeper("ray::DashboardAgent"), sleeper("somebody")]
    until(lambda: guardian._title(started[0].pid).startswith(b"ray::"))
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_agents_end_with_the_service_and_nobody_else_does(processes: list["subprocess.Popen[bytes]"]) -> None:
    """Once the service is gone, which ends the guardian's input, the agent is killed; the other process lives on."""
    agent, other = processes
    with ExitStack() as service:
        found = guardian.start_guardian()
        assert found is not None
        service.enter_context(found)
        with pytest.raises(subprocess.TimeoutExpired):
            agent.wait(0.5)

    assert -9 == agent.wait(PATIENCE_S)
    assert other.poll() is None


def test_number_that_went_to_another_process_is_left_alone(processes: list["subprocess.Popen[bytes]"]) -> None:
    """A process is known by its start too: one that has an agent's number by now is not ended."""
    agent, other = processes
    guardian_of_the_dead = subprocess.run(
        [*("python3", "-I", "-S", guardian.__file__), f"{agent.pid}:1", f"{other.pid}:2"], input=b"", check=True
    )

    assert 0 == guardian_of_the_dead.returncode
    assert [None, None] == [agent.poll(), other.poll()]


def test_without_agents_there_is_no_guardian() -> None:
    """Nothing is to be ended where Ray does not run."""
    assert guardian.start_guardian() is None
