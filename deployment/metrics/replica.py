"""How a replica fares, as Prometheus series: every series of the catalogue whose source is a replica, and no other.

Never money: credit and shares come from the ledger by the exporter. Ray exports each series as `ray_<name>`, with
labels of its own that tell one replica from another, on a port of the machine and not behind Serve's proxy, which would
ask any replica. What Ray gets wrong is made harmless here and in the catalogue:

- It makes up a histogram's sum from its buckets: read quantiles and never `_sum`.
- It drops the points of processes whose buckets differ: they are constants of the catalogue, and no setting.
- It goes on exporting what a dead replica told last: so each one tells, every few seconds, a heartbeat and its gauges.
- Its metrics do not pickle: they are made in the replica, with the facade, and never at import.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from ray.serve import metrics

from deployment.metrics.catalogue import Series, of_source

HEARTBEAT_S = 5.0


class Sink(Protocol):
    """Where values go."""

    def record(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Add to a counter, set a gauge, or observe in a histogram; all labels of the catalogue are given."""


class RaySink:
    """Ray's metrics, one for each series, made once. Usable from any thread."""

    def __init__(self) -> None:
        self._metrics = {each.name: _ray_metric(each) for each in of_source("replica")}

    def record(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """As in `Sink`."""
        tags = dict(labels)  # one of its own each time: Ray writes labels into it
        match self._metrics[name]:
            case metrics.Counter() as counter:
                counter.inc(value, tags)
            case metrics.Gauge() as gauge:
                gauge.set(value, tags)
            case histogram:
                histogram.observe(value, tags)


class ReplicaMetrics:
    """How requests fare in one replica. Usable from any thread; build it in the replica.

    Args:
        model: what is served.
        sink: where values go; None is Ray.
    """

    def __init__(self, model: str, sink: Sink | None = None) -> None:
        self._model = model
        self._sink = sink or RaySink()
        self._telling = threading.Lock()
        self._gauges: dict[str, float] = {}
        self._ending = threading.Event()
        self.load(0, 0)
        self.lag(0, 0.0)
        self.note_unscored(0, 0.0)
        self.note_engine(0.0, differs=False)
        self.note_publication(is_served=True)
        self._thread = threading.Thread(target=self._beat, name="protoken-heartbeat", daemon=True)
        self._thread.start()

    def note_step(self, first_s: Sequence[float], between_s: Sequence[float]) -> None:
        """A step brought one token to each of some requests: the first one so long after the request, or a next one."""
        generated = len(first_s) + len(between_s)
        if generated:
            self._tell("protoken_replica_generated_tokens_total", generated)
        for seconds in first_s:
            self._tell("protoken_replica_time_to_first_token_seconds", seconds)
        for seconds in between_s:
            self._tell("protoken_replica_inter_token_seconds", seconds)

    def note_attribution(self, seconds: float) -> None:
        """A response was attributed, in so long."""
        self._tell("protoken_replica_attribution_seconds", seconds)

    def load(self, running: int, waiting: int) -> None:
        """So many requests are being decoded, and so many wait."""
        self._set(protoken_replica_running_requests=running, protoken_replica_waiting_requests=waiting)

    def note_unscored(self, responses: int, seconds: float) -> None:
        """So many responses wait for their score, the oldest of them for so long."""
        self._set(protoken_replica_unscored_responses=responses, protoken_replica_scoring_lag_seconds=seconds)

    def note_engine(self, difference_nats: float, *, differs: bool) -> None:
        """A remote engine's log-probabilities were so far from the bundle's, and its weights are others or not."""
        self._set(
            protoken_replica_engine_difference_nats=difference_nats, protoken_replica_engine_differs=float(differs)
        )

    def lag(self, receipts: int, seconds: float) -> None:
        """So many receipts wait for the ledger, the oldest of them for so long."""
        self._set(protoken_replica_spooled_receipts=receipts, protoken_replica_ledger_lag_seconds=seconds)

    def note_publication(self, *, is_served: bool) -> None:
        """Whether the bundle that was published last is the one that is served."""
        self._set(protoken_replica_unserved_publications=int(not is_served))

    def note_end(self, outcome: str, seconds: float) -> None:
        """A request ended this long after it came."""
        self._tell("protoken_replica_request_duration_seconds", seconds, outcome=outcome)
        self._tell("protoken_replica_requests_total", 1, outcome=outcome)

    def close(self) -> None:
        """Tell no more: the heartbeat stops, and so the gauges count no more."""
        self._ending.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._ending.is_set():
            with self._telling:
                for name, value in self._gauges.items():
                    self._tell(name, value)
            self._tell("protoken_replica_heartbeat_timestamp_seconds", time.time())
            self._ending.wait(HEARTBEAT_S)

    def _set(self, **gauges: float) -> None:
        with self._telling:  # or a beat could tell an old value after this one
            self._gauges |= gauges
            for name, value in gauges.items():
                self._tell(name, value)

    def _tell(self, name: str, value: float, **labels: str) -> None:
        self._sink.record(name, value, {"model": self._model, **labels})


def _ray_metric(described: Series) -> metrics.Counter | metrics.Gauge | metrics.Histogram:
    """Ray's metric of a series. Its `name`, `description` and `boundaries` are the catalogue's."""
    match described.kind:
        case "counter":
            return metrics.Counter(described.name, described.help, described.labels)
        case "gauge":
            return metrics.Gauge(described.name, described.help, described.labels)
        case "histogram":
            return metrics.Histogram(described.name, described.help, list(described.buckets), described.labels)
        case _:
            raise ValueError(f"a replica tells no {described.kind}: {described.name}")
