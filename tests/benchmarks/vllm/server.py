"""A vLLM that serves the weights of a bundle on a free port of loopback."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.programs import served
from tests.benchmarks.serving.client import Server

NAME = "bundle"
START_TIMEOUT_S = 600
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
        ProgramError: it ended while it started, or did not answer in time.
    """
    command = [str(program), "serve", str(weights.absolute()), "--served-model-name", NAME, "--dtype", dtype]
    command += ["--max-model-len", str(CONTEXT), "--no-enable-prefix-caching", *["--enforce-eager"] * quick_start]
    more = {
        "PATH": f"{program.parent}:{os.environ.get('PATH', '')}",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_NO_USAGE_STATS": "1",
    }
    with served("vLLM", command, log, START_TIMEOUT_S, more) as (address, pid):
        yield Server(f"{address}/v1", NAME, "none", {"stream_options": {"include_usage": True}}, pid)
