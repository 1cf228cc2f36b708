"""An exporter on a free port, and what a scrape of it says."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Exemplar

from deployment.metrics.exporter import Exporter
from tests.waiting import PATIENCE_S
from tests.wanted import program

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


def free_port() -> int:
    """A port of loopback that is free for now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def exporter(url: str, policy: Path | None = None, port: int | None = None) -> Iterator[str]:
    """The address of a running exporter's metrics."""
    port = port or free_port()
    running = Exporter(url, "127.0.0.1", port, policy)
    try:
        yield f"http://127.0.0.1:{port}/metrics"
    finally:
        running.close()


def samples(address: str) -> dict[tuple[str, ...], float]:
    """Every sample of a scrape by its name and the values of its labels, in the order of the labels' names."""
    families = text_string_to_metric_families(httpx.get(address, timeout=PATIENCE_S).raise_for_status().text)
    return {
        (sample.name, *(value for _name, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def exemplars(address: str) -> dict[str, Exemplar]:
    """The exemplars of the durations' buckets by upper bound, where OpenMetrics is asked for."""
    answer = httpx.get(address, headers=OPENMETRICS, timeout=PATIENCE_S).raise_for_status()
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    return {
        sample.labels["le"]: sample.exemplar
        for family in openmetrics_families(answer.text)
        for sample in family.samples
        if sample.exemplar
    }


def promtool_says(text: str) -> tuple[int, str, str]:
    """Code, output and errors of `promtool check metrics`; skips the test where there is none, but not in CI."""
    promtool = program("promtool", "prometheus")
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    return checked.returncode, checked.stdout, checked.stderr
