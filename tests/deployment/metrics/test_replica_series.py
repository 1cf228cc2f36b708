"""Every series of the catalogue that a replica tells, through the one facade, into a registry of prometheus_client."""

import pickle
import time
from collections.abc import Iterator, Mapping

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from deployment.metrics import replica
from deployment.metrics.catalogue import Series, of_source
from deployment.metrics.replica import RaySink, ReplicaMetrics
from tests.waiting import until


class Registered:
    """A sink outside Ray: the same series, by the same catalogue, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._metrics = {each.name: self._metric(each) for each in of_source("replica")}

    def record(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """As in `Sink`."""
        match self._metrics[name].labels(**labels):
            case Counter() as counter:
                counter.inc(value)
            case Gauge() as gauge:
                gauge.set(value)
            case Histogram() as histogram:
                histogram.observe(value)

    def value(self, name: str, **labels: str) -> float | None:
        """What stands under the labels."""
        return self.registry.get_sample_value(name, {"model": "demo", **labels})

    def _metric(self, described: Series) -> Counter | Gauge | Histogram:
        about = described.name, described.help, described.labels
        match described.kind:
            case "counter":
                return Counter(*about, registry=self.registry)
            case "gauge":
                return Gauge(*about, registry=self.registry)
            case _:
                return Histogram(*about, buckets=described.buckets, registry=self.registry)


@pytest.fixture
def sink() -> Registered:
    """Where the values go."""
    return Registered()


@pytest.fixture
def metrics(sink: Registered, monkeypatch: pytest.MonkeyPatch) -> Iterator[ReplicaMetrics]:
    """The facade over it, with a quick heartbeat."""
    monkeypatch.setattr(replica, "HEARTBEAT_S", 0.02)
    metrics = ReplicaMetrics("demo", sink)
    yield metrics
    metrics.close()


def test_every_replica_series_of_the_catalogue_is_told(metrics: ReplicaMetrics, sink: Registered) -> None:
    """Each has a value once requests ran, and what is told comes to what happened."""
    metrics.load(2, 3)
    metrics.lag(4, 1.5)
    metrics.note_publication(is_served=False)
    metrics.note_step([0.2, 0.3], [0.05])
    metrics.note_step([], [])
    metrics.note_attribution(0.4)
    metrics.note_engine(0.03, differs=True)
    metrics.note_end("finished", 2.0)
    metrics.note_end("refused", 0.01)
    told = {sample.name for family in sink.registry.collect() for sample in family.samples}

    for each in of_source("replica"):
        assert {each.name, f"{each.name}_count"} & told, f"nobody tells {each.name}"
    assert 3 == sink.value("protoken_replica_generated_tokens_total")
    assert (2, 1, 1) == tuple(
        sink.value(f"protoken_replica_{name}_seconds_count")
        for name in ("time_to_first_token", "inter_token", "attribution")
    )
    assert (1, 1) == tuple(
        sink.value("protoken_replica_requests_total", outcome=outcome) for outcome in ("finished", "refused")
    )
    assert (0.03, 1) == tuple(sink.value(f"protoken_replica_engine_{name}") for name in ("difference_nats", "differs"))
    assert (2, 3, 4, 1.5, 1) == tuple(
        sink.value(f"protoken_replica_{name}")
        for name in (
            "running_requests", "waiting_requests", "spooled_receipts", "ledger_lag_seconds", "unserved_publications"
        )
    )  # fmt: skip


def test_an_idle_replica_tells_its_gauges_from_the_start_and_its_heartbeat_again(
    metrics: ReplicaMetrics, sink: Registered
) -> None:
    """Without a request its gauges stand at 0 and the heartbeat goes on; when it is closed, that stops."""
    name = "protoken_replica_heartbeat_timestamp_seconds"
    first = until(lambda: sink.value(name))
    until(lambda: sink.value(name) != first)
    gauges = {each.name: sink.value(each.name) for each in of_source("replica") if each.kind == "gauge"}
    metrics.close()
    last = sink.value("protoken_replica_heartbeat_timestamp_seconds")
    time.sleep(0.1)

    assert {0} == {value for name, value in gauges.items() if "heartbeat" not in name}
    assert last == sink.value("protoken_replica_heartbeat_timestamp_seconds")


def test_a_gauge_that_ray_forgot_is_told_again(metrics: ReplicaMetrics, sink: Registered) -> None:
    """Ray drops a gauge that is not told for a while; with the next heartbeat it is there again, at its last value."""
    metrics.lag(4, 1.5)
    sink.record("protoken_replica_spooled_receipts", -1, {"model": "demo"})
    until(lambda: sink.value("protoken_replica_spooled_receipts") == 4)


def test_what_ray_exports_has_the_names_labels_and_buckets_of_the_catalogue() -> None:
    """They are constants, the same in every replica; who makes them again in one process does no harm."""
    RaySink()
    made = RaySink()

    for each in of_source("replica"):
        metric = made._metrics[each.name]
        assert (each.name, each.help, each.labels) == (
            metric.info["name"],
            metric.info["description"],
            tuple(metric.info["tag_keys"]),
        )
        assert list(each.buckets) == getattr(metric, "boundaries", [])


def test_a_replica_is_shipped_without_its_metrics() -> None:
    """What Serve pickles is the class and the settings; the facade itself cannot be pickled, and never has to be."""
    metrics = ReplicaMetrics("demo", Registered())
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(metrics)
    metrics.close()
