"""The ledger as Prometheus series: credit by client, commons, generated tokens, and request duration.

The book is the only truth: every counter is a sum over receipts, so it survives restarts and never falls: what was
reversed is counted beside what was booked, and not taken off it. Reads only.
"""

import bisect
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from deployment.errors import StartError
from rewards import COMMONS, MICRO_CREDITS_PER_TOKEN, Ledger

__all__ = ["DURATION_BUCKETS_US", "LedgerCollector", "serve_exporter"]

DURATION_BUCKETS_US = tuple(
    round(seconds * 1_000_000) for seconds in (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
)
PAGE = 1000


@dataclass
class _Totals:
    """Sums over the receipts of one model, all integers."""

    receipts: int = 0
    tokens: int = 0
    credit: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # micro-credits by account
    reversed_tokens: int = 0
    reversed_credit: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    duration_us: int = 0
    by_bucket: list[int] = field(default_factory=lambda: [0] * (len(DURATION_BUCKETS_US) + 1))

    def add(self, receipt: Mapping[str, Any]) -> None:
        if receipt["kind"] == "reversal":
            self.reversed_tokens -= receipt["tokens"]
            for account, amount in receipt["amounts"].items():
                self.reversed_credit[account] -= amount
            return
        self.receipts += 1
        self.tokens += receipt["tokens"]
        for account, amount in receipt["amounts"].items():
            self.credit[account] += amount
        self.duration_us += receipt["duration_us"]
        self.by_bucket[bisect.bisect_left(DURATION_BUCKETS_US, receipt["duration_us"])] += 1


class LedgerCollector(Collector):
    """Reads on each scrape what was booked since the last one; the ledger is append-only, so that is enough."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._sequence = 0
        self._models: dict[str, _Totals] = defaultdict(_Totals)

    def collect(self) -> Iterator[Metric]:
        """Every series, as of now.

        Raises:
            LedgerError: the ledger cannot be read; the scrape fails, and `up` tells.
        """
        with self._lock:
            self._catch_up()  # before the first series: a scrape that fails gives none
            yield from (*_counters(self._models), *_reversed(self._models), _durations(self._models), _build_info())

    def _catch_up(self) -> None:
        while page := self._ledger.receipts_after(self._sequence, PAGE):
            for receipt in page:
                self._models[receipt["consortium"]].add(receipt)
                self._sequence = receipt["sequence"]


def _counters(models: Mapping[str, _Totals]) -> Iterator[Metric]:
    attributed = CounterMetricFamily(
        "protoken_attributed_tokens", "Generated tokens credited to a client.", labels=["client", "model"]
    )
    commons = CounterMetricFamily(
        "protoken_commons_tokens", "Generated tokens credited to the commons: no client earned them.", labels=["model"]
    )
    generated = CounterMetricFamily(
        "protoken_generated_tokens", "Generated tokens; attributed and commons tokens sum to it.", labels=["model"]
    )
    receipts = CounterMetricFamily("protoken_receipts", "Responses booked in the ledger.", labels=["model"])
    for model, totals in models.items():
        for account, amount in totals.credit.items():
            tokens = amount / MICRO_CREDITS_PER_TOKEN
            if account == COMMONS:
                commons.add_metric([model], tokens)
            else:
                attributed.add_metric([account, model], tokens)
        generated.add_metric([model], totals.tokens)
        receipts.add_metric([model], totals.receipts)
    yield from (attributed, commons, generated, receipts)


def _reversed(models: Mapping[str, _Totals]) -> Iterator[Metric]:
    tokens = CounterMetricFamily(
        "protoken_reversed_tokens",
        "Generated tokens whose receipts were reversed; still among the generated ones.",
        labels=["model"],
    )
    by_client = CounterMetricFamily(
        "protoken_reversed_client_tokens",
        "Tokens of reversed receipts that a client had been credited; still among its attributed ones.",
        labels=["client", "model"],
    )
    for model, totals in models.items():
        tokens.add_metric([model], totals.reversed_tokens)
        for account in sorted(totals.credit.keys() - {COMMONS}):
            by_client.add_metric([account, model], totals.reversed_credit[account] / MICRO_CREDITS_PER_TOKEN)
    yield from (tokens, by_client)


def _durations(models: Mapping[str, _Totals]) -> Metric:
    durations = HistogramMetricFamily(
        "protoken_request_duration_seconds", "Time from a request's arrival to its booking.", labels=["model"]
    )
    bounds = [str(bucket / 1_000_000) for bucket in DURATION_BUCKETS_US] + ["+Inf"]
    for model, totals in models.items():
        below = 0
        buckets = []
        for bound, count in zip(bounds, totals.by_bucket, strict=True):
            below += count
            buckets.append((bound, below))
        durations.add_metric([model], buckets, totals.duration_us / 1_000_000)
    return durations


def _build_info() -> Metric:
    return InfoMetricFamily("protoken_build", "The version of protoken.", value={"version": version("protoken")})


def serve_exporter(ledger_url: str, host: str, port: int) -> WSGIServer:
    """Serve `/metrics` from a thread of its own and return its server; `shutdown()` ends it.

    Raises:
        LedgerError: the ledger is missing or not at head.
        StartError: the port cannot be had.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(LedgerCollector(Ledger(ledger_url)))
    try:
        server, _thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise StartError(f"the exporter cannot listen on {host}:{port}: {error.strerror}") from error
    return server
