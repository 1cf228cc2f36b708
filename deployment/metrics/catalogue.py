"""Every series there is, once: name, kind, unit, labels, buckets and help. Whoever exports or shows one takes it here.

Money comes from the ledger alone, by one exporter; replicas tell only how they fare. Ray exports a replica's series
with `ray_` before its name and labels of its own. Knows no value.
"""

from dataclasses import dataclass
from typing import Final, Literal

MOST_CLIENTS: Final = 100
"""Clients that have a label of their own: the first ones by registration, so that nobody's ever changes."""
OTHER: Final = "other"
"""The label of all the others together."""

DURATION_BUCKETS_S: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
FIRST_TOKEN_BUCKETS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0)
STEP_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Series:
    """One series.

    Attributes:
        name: as the code calls it; counters end in `_total`.
        kind: of metric.
        unit: of the value.
        labels: their names; the values of each are few: clients, models, outcomes, kinds and states, currencies.
        help: one sentence for whoever reads a graph.
        source: who knows the value.
        buckets: upper bounds of a histogram.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    unit: str
    labels: tuple[str, ...]
    help: str
    source: Literal["ledger", "replica"]
    buckets: tuple[float, ...] = ()

    @property
    def exported_name(self) -> str:
        """The name by which Prometheus knows it."""
        return f"ray_{self.name}" if self.source == "replica" else self.name


def _ledger(name: str, kind: Literal["counter", "gauge", "info"], unit: str, labels: str, text: str) -> Series:
    return Series(name, kind, unit, tuple(labels.split()), text, "ledger")


def _replica(name: str, kind: Literal["counter", "gauge"], unit: str, labels: str, text: str) -> Series:
    return Series(name, kind, unit, tuple(labels.split()), text, "replica")


# fmt: off
_ALL: Final = (
    # What was booked; counters over all receipts. What was reversed is counted beside it and never taken off.
    _ledger("protoken_generated_tokens_total", "counter", "tokens", "model",
            "Generated tokens that were booked; attributed, commons and pending tokens sum to it."),
    _ledger("protoken_attributed_tokens_total", "counter", "tokens", "client model",
            "Generated tokens credited to a client."),
    _ledger("protoken_commons_tokens_total", "counter", "tokens", "model",
            "Generated tokens credited to the commons: no client earned them."),
    _ledger("protoken_pending_tokens_total", "counter", "tokens", "model",
            "Generated tokens of responses that were not measured: booked as pending, and settled by those that were."),
    _ledger("protoken_receipts_total", "counter", "receipts", "model",
            "Responses booked in the ledger."),
    _ledger("protoken_reversals_total", "counter", "receipts", "model",
            "Responses whose credit was reversed."),
    _ledger("protoken_reversed_tokens_total", "counter", "tokens", "model",
            "Generated tokens whose receipts were reversed; still among the generated ones."),
    _ledger("protoken_reversed_client_tokens_total", "counter", "tokens", "client model",
            "Tokens of reversed receipts that a client had been credited; still among its attributed ones."),
    Series("protoken_request_duration_seconds", "histogram", "seconds", ("model",),
           "Time from a request's arrival to its booking.", "ledger", DURATION_BUCKETS_S),
    _ledger("protoken_client_info", "info", "", "client name",
            "What people call a client, as it was registered."),
    # The open period, as it would be settled now.
    _ledger("protoken_open_period_start_timestamp_seconds", "gauge", "seconds", "",
            "When the last period was closed; 0 before the first."),
    _ledger("protoken_open_period_tokens", "gauge", "tokens", "",
            "Generated tokens of the open period, less those reversed."),
    _ledger("protoken_share_ratio", "gauge", "ratio", "client",
            "A client's part of the open period's credit, 0 to 1; with the commons' part and what is pending they sum "
            "to 1."),
    _ledger("protoken_commons_share_ratio", "gauge", "ratio", "",
            "The commons' part of the open period's credit, 0 to 1."),
    _ledger("protoken_pending_share_ratio", "gauge", "ratio", "",
            "The part of the open period's credit that is pending, 0 to 1: of responses that were not measured."),
    _ledger("protoken_pool_preview_minor_units", "gauge", "minor units", "currency",
            "What the open period would pay out in all if it were closed now; only where a policy is set."),
    _ledger("protoken_payout_preview_minor_units", "gauge", "minor units", "client currency",
            "What a client would be paid if the open period were closed now; only where a policy is set."),
    _ledger("protoken_final_payout_minor_units_total", "counter", "minor units", "client currency",
            "What a client was awarded in periods that are final or paid."),
    _ledger("protoken_periods", "gauge", "periods", "state",
            "Periods by state: draft, disputed, final, paid."),
    _ledger("protoken_holds", "gauge", "holds", "scope",
            "Holds in force, on a client or on a response."),
    _ledger("protoken_settlement_duration_seconds", "gauge", "seconds", "",
            "How long the last preview of the open period took."),
    # Which round of training is published, and what its bundle records; the bundle is read where the exporter finds it.
    _ledger("protoken_published_round", "gauge", "rounds", "model",
            "The round of federated training whose bundle is published."),
    _ledger("protoken_published_timestamp_seconds", "gauge", "seconds", "model",
            "Since when that bundle is the one that is published, by a publication or by a rollback."),
    _ledger("protoken_published_residual_ratio", "gauge", "ratio", "model",
            "What the server did in that bundle's last recorded round besides averaging, as a part of what the clients "
            "changed in it on average, by norms; only where the bundle records its rounds and can be read."),
    _ledger("protoken_published_unsigned_updates", "gauge", "updates", "model",
            "Updates in that bundle that carry no signature of the client whose they are; likewise."),
    # The books themselves.
    _ledger("protoken_ledger_last_booking_timestamp_seconds", "gauge", "seconds", "",
            "When the last receipt was booked; 0 before the first."),
    _ledger("protoken_ledger_misdated_receipts", "gauge", "receipts", "",
            "Receipts that say they were made over 10 minutes after their booking: by a clock that was wrong."),
    _ledger("protoken_log_leaves", "gauge", "leaves", "",
            "Receipts and events under the last signed checkpoint."),
    _ledger("protoken_log_unsealed_rows", "gauge", "rows", "",
            "Receipts and events that no checkpoint covers yet."),
    _ledger("protoken_log_oldest_unsealed_timestamp_seconds", "gauge", "seconds", "",
            "When the oldest of the rows that no checkpoint covers was booked; 0 when there is none."),
    _ledger("protoken_checkpoint_timestamp_seconds", "gauge", "seconds", "",
            "When the last checkpoint was signed; 0 before the first."),
    _ledger("protoken_events_total", "counter", "events", "kind",
            "Events in the books: moves of periods, holds, statements, keys, privileged calls."),
    _ledger("protoken_exporter_reading_seconds", "gauge", "seconds", "",
            "How long the exporter took to read what was new in the ledger."),
    _ledger("protoken_build_info", "info", "", "version",
            "The version of protoken."),
    # How each replica fares.
    _replica("protoken_replica_requests_total", "counter", "requests", "model outcome",
             "Requests that ended, by outcome: finished, cancelled, refused, failed."),
    _replica("protoken_replica_generated_tokens_total", "counter", "tokens", "model",
             "Tokens that were generated, booked or not yet."),
    Series("protoken_replica_time_to_first_token_seconds", "histogram", "seconds", ("model",),
           "Time from a request's arrival at the replica to its first token.", "replica", FIRST_TOKEN_BUCKETS_S),
    Series("protoken_replica_inter_token_seconds", "histogram", "seconds", ("model",),
           "Time between two tokens of one response.", "replica", STEP_BUCKETS_S),
    Series("protoken_replica_request_duration_seconds", "histogram", "seconds", ("model", "outcome"),
           "Time from a request's arrival at the replica to its end, booked or not.", "replica", DURATION_BUCKETS_S),
    Series("protoken_replica_attribution_seconds", "histogram", "seconds", ("model",),
           "Time to attribute one response to the clients.", "replica", STEP_BUCKETS_S),
    _replica("protoken_replica_running_requests", "gauge", "requests", "model",
             "Requests that are being decoded."),
    _replica("protoken_replica_waiting_requests", "gauge", "requests", "model",
             "Requests that wait for a place in the batch."),
    _replica("protoken_replica_unscored_responses", "gauge", "responses", "model",
             "Responses that ended and wait for their score."),
    _replica("protoken_replica_scoring_lag_seconds", "gauge", "seconds", "model",
             "How long the oldest of these responses has been waiting; 0 when there is none."),
    _replica("protoken_replica_spooled_receipts", "gauge", "receipts", "model",
             "Receipts of this replica that are spooled and not in the ledger yet."),
    _replica("protoken_replica_ledger_lag_seconds", "gauge", "seconds", "model",
             "How long the oldest of these receipts has been waiting; 0 when there is none."),
    _replica("protoken_replica_engine_difference_nats", "gauge", "nats", "model",
             "How far a remote engine's log-probabilities were from the bundle's when they were compared last, as a "
             "mean over tokens; 0 where it is embedded."),
    _replica("protoken_replica_engine_differs", "gauge", "boolean", "model",
             "1 where a remote engine was found to serve other weights than the bundle's, else 0."),
    _replica("protoken_replica_unserved_publications", "gauge", "publications", "model",
             "1 while the bundle that was published last cannot be loaded, so that the one before is served; else 0."),
    _replica("protoken_replica_heartbeat_timestamp_seconds", "gauge", "seconds", "model",
             "When this replica last told its series. Ray goes on exporting what a dead replica told last, so that a "
             "gauge counts only with a fresh heartbeat beside it."),
)
# fmt: on

CATALOGUE: Final = {each.name: each for each in _ALL}


def series(name: str) -> Series:
    """A series by its name.

    Raises:
        KeyError: there is none of this name.
    """
    return CATALOGUE[name]


def of_source(source: Literal["ledger", "replica"]) -> list[Series]:
    """Every series of a source, in the order of the catalogue."""
    return [each for each in _ALL if each.source == source]
