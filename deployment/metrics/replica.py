"""Operational series of a replica, behind one small facade over `ray.serve.metrics`.

Never money: credit and shares come from the ledger by `exporter`. Ray exports each series as `ray_<name>` and adds
the replica's labels; it rebuilds a histogram's sum from its buckets, so read quantiles here and means nowhere.
"""

from ray.serve import metrics

from deployment.metrics.catalogue import DURATION_BUCKETS_S, FIRST_TOKEN_BUCKETS_S

__all__ = ["ReplicaMetrics"]


class ReplicaMetrics:
    """How requests fare in one replica. Build it in the replica, never at import: Ray's metrics do not pickle.

    The buckets are constants because Ray drops the points of processes that disagree about them.
    """

    def __init__(self, model: str) -> None:
        self._first_token = metrics.Histogram(
            "protoken_replica_time_to_first_token_seconds",
            description="Time from a request's arrival at the replica to its first token.",
            boundaries=list(FIRST_TOKEN_BUCKETS_S),
            tag_keys=("model",),
        )
        self._duration = metrics.Histogram(
            "protoken_replica_request_duration_seconds",
            description="Time from a request's arrival at the replica to its end, booked or not.",
            boundaries=list(DURATION_BUCKETS_S),
            tag_keys=("model", "outcome"),
        )
        self._requests = metrics.Counter(
            "protoken_replica_requests_total",
            description="Requests that ended, by outcome: finished, cancelled, refused, failed.",
            tag_keys=("model", "outcome"),
        )
        self._spooled = metrics.Gauge(
            "protoken_replica_spooled_receipts",
            description="Receipts of this replica that are spooled and not in the ledger yet.",
            tag_keys=("model",),
        )
        self._lag = metrics.Gauge(
            "protoken_replica_ledger_lag_seconds",
            description="How long the oldest of these receipts has been waiting; 0 when there is none.",
            tag_keys=("model",),
        )
        for metric in (self._first_token, self._duration, self._requests, self._spooled, self._lag):
            metric.set_default_tags({"model": model})  # a mapping each: Ray writes its own labels into it

    def first_token(self, seconds: float) -> None:
        """A request's first token came this long after the request."""
        self._first_token.observe(seconds)

    def lag(self, receipts: int, seconds: float) -> None:
        """So many receipts wait for the ledger, the oldest of them for so long."""
        self._spooled.set(receipts)
        self._lag.set(seconds)

    def ended(self, outcome: str, seconds: float) -> None:
        """A request ended this long after it came."""
        self._duration.observe(seconds, tags={"outcome": outcome})
        self._requests.inc(tags={"outcome": outcome})
