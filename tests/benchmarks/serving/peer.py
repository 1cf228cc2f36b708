"""`transformers serve`, of the version that is installed here, in an environment of its own that is made once.

Of its own, since what it needs to serve would move our pins.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.programs import install, served
from tests.benchmarks.serving.client import Server
from tests.benchmarks.serving.record import MODES

OPTIONS = dict(zip(MODES, (["--continuous-batching", "--cb-max-memory-percent", "0.2"], []), strict=True))
"""Its cache may have a fifth of the free memory: gibibytes, where 32 streams of this model need a few hundred MiB."""
START_TIMEOUT_S = 300


def peer_program(folder: Path) -> Path:
    """The program in its environment, which is made where it is not there yet.

    Raises:
        ProgramError: it cannot be installed.
    """
    program, ready = folder / "bin" / "transformers", folder / f".ready-{version('transformers')}"
    if not ready.exists():
        torch = version("torch").partition("+")[0]
        wanted = (f"torch=={torch}", f"transformers[serving]=={version('transformers')}")
        install("the peer", sys.executable, "-m", "venv", "--clear", str(folder))
        for each in wanted:
            install("the peer", str(folder / "bin" / "pip"), "install", "--quiet", each)
        ready.touch()
    return program.absolute()


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
        ProgramError: it ended while it started, or did not answer in time.
    """
    command = [str(program), "serve", str(weights), *OPTIONS[mode], "--device", "cpu", "--dtype", dtype]
    with served("the peer", command, log, START_TIMEOUT_S, {}) as (address, pid):
        yield Server(f"{address}/v1", str(weights), "none", {}, pid)
