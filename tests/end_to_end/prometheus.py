"""A real Prometheus on a port of loopback and in a folder of its own, ended with whoever started it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.end_to_end.service import free_port
from tests.waiting import PATIENCE_S, until_up
from tests.wanted import program


@contextmanager
def prometheus(
    folder: Path, *, targets: Mapping[str, str | Sequence[str]], rules: Sequence[Path] = (), every_s: float = 1
) -> Iterator[str]:
    """The address of a Prometheus that scrapes and evaluates every second, with storage of exemplars.

    Skips the test where there is none, but not in CI.

    Args:
        folder: of its own; made, and its data stay there.
        targets: job -> "host:port" or several of them, all of whose path is `/metrics`.
        rules: files of rules.
        every_s: seconds between two scrapes, and between two evaluations of the rules.
    """
    prometheus = program("prometheus", "prometheus")
    folder.mkdir(parents=True, exist_ok=True)
    config, port = folder / "prometheus.yml", free_port()
    config.write_text(json.dumps(_config(targets, rules, every_s)))  # JSON is YAML
    command = [prometheus, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage", "--log.level=warn"]
    log = folder / "prometheus.log"
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
    try:
        until_up("prometheus", f"http://127.0.0.1:{port}/-/ready", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def query(address: str, expression: str) -> list[dict[str, Any]]:
    """The vector that an expression gives now: for each series its `metric` and its `value`, (time, text)."""
    return _result(address, "query", query=expression)


def query_range(address: str, expression: str, start: float, end: float, step_s: float = 1) -> list[dict[str, Any]]:
    """For each series its `metric` and its `values`, (time, text) each, between two moments in seconds since 1970."""
    return _result(address, "query_range", query=expression, start=start, end=end, step=step_s)


def _result(address: str, path: str, **parameters: Any) -> list[dict[str, Any]]:
    answer = httpx.get(f"{address}/api/v1/{path}", params=parameters, timeout=PATIENCE_S)
    assert answer.is_success, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]["result"]
    return found


def _config(targets: Mapping[str, str | Sequence[str]], rules: Sequence[Path], every_s: float) -> dict[str, Any]:
    every = f"{round(every_s * 1000)}ms"
    return {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": [str(path.absolute()) for path in rules],
        "scrape_configs": [
            {
                "job_name": job,
                "static_configs": [{"targets": [addresses] if isinstance(addresses, str) else [*addresses]}],
            }
            for job, addresses in targets.items()
        ],
    }
