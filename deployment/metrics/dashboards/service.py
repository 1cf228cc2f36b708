"""The board *Service and books*: how fast it answers, whether the ledger keeps up, and whether anything is alarming."""

from typing import Final

from deployment.metrics.catalogue import series
from deployment.metrics.dashboards.board import Band, board
from deployment.metrics.dashboards.panels import WHOLE, AnyPanel, figure, graph, listing
from deployment.metrics.dashboards.queries import (
    Query,
    age,
    live_gauge,
    once,
    once_per_second,
    per_second,
    quantile,
    select,
)

_TOKENS_PER_SECOND: Final = "suffix: tokens/s"
_FIRING: Final = 'ALERTS{alertstate="firing", alertname=~"Protoken.*"}'
_PERCENTILES: Final = ((0.5, "p50"), (0.95, "p95"))


def service() -> str:
    """The board's JSON document."""
    return board(
        "protoken-service",
        "ProToken: service and books",
        "How the service answers, whether every response gets into the ledger, and what is alarming.",
        (_now(), _answers(), _load(), _rounds(), _ledger(), _log(), _upkeep()),
        (("model", "protoken_generated_tokens_total"),),
    )


def _now() -> Band:
    alerts = figure(
        "Alerts firing",
        "Alerts of the rules in configs/prometheus that fire now; they are listed below.",
        WHOLE,
        Query(f"count({_FIRING}) or vector(0)", "firing"),
        steps=((1, "red"),),
    )
    balance = figure(
        "Books balance",
        "Attributed and commons tokens sum to the generated ones, on every exporter.",
        WHOLE,
        Query(_imbalance(), "tokens apart"),
        steps=((0.5, "red"),),
        words=((0, 0.5, "balanced"),),
    )
    tokens = figure(
        "Tokens per second",
        _help("protoken_replica_generated_tokens_total"),
        _TOKENS_PER_SECOND,
        Query(f"sum({_generation_rate()})", "tokens"),
        decimals=1,
        empty="0",
    )
    running = figure(
        "Running now",
        _help("protoken_replica_running_requests"),
        WHOLE,
        Query(f"sum({live_gauge('protoken_replica_running_requests', 'model')})", "running"),
        empty="no replica",
    )
    waiting = figure(
        "Waiting now",
        _help("protoken_replica_waiting_requests"),
        WHOLE,
        Query(f"sum({live_gauge('protoken_replica_waiting_requests', 'model')})", "waiting"),
        steps=((1, "orange"),),
        empty="no replica",
    )
    lag = figure(
        "Ledger lag",
        _help("protoken_replica_ledger_lag_seconds"),
        "s",
        Query(f"max({live_gauge('protoken_replica_ledger_lag_seconds', 'model')})", "lag"),
        steps=((5, "orange"), (60, "red")),
        empty="no replica",
    )
    panels = (alerts, balance, tokens, running, waiting, lag)
    return Band("Now", ((4, tuple((panel, 4) for panel in panels)),))


def _answers() -> Band:
    tokens = graph(
        "Generated tokens",
        _help("protoken_replica_generated_tokens_total"),
        _TOKENS_PER_SECOND,
        Query(_generation_rate(), "{{model}}"),
    )
    outcomes = graph(
        "Requests by outcome",
        f"{_help('protoken_replica_requests_total')} The first of an outcome in a replica's life is no rate yet.",
        "reqps",
        Query(per_second("protoken_replica_requests_total", "outcome", "model"), "{{outcome}}"),
        stacked=True,
    )
    first = _latency("Time to first token", "protoken_replica_time_to_first_token_seconds")
    step = _latency("Time between tokens", "protoken_replica_inter_token_seconds")
    whole = _latency("Request duration in the replica", "protoken_replica_request_duration_seconds")
    booked = _latency("Request duration, booking included", "protoken_request_duration_seconds")
    return Band("Answers", ((9, ((tokens, 8), (outcomes, 8), (first, 8))), (9, ((step, 8), (whole, 8), (booked, 8)))))


def _load() -> Band:
    places = graph(
        "Requests running and waiting",
        "Requests that are being decoded, and those that wait for a place in the batch; of live replicas only.",
        WHOLE,
        Query(f"sum by (model) ({live_gauge('protoken_replica_running_requests', 'model')})", "running {{model}}"),
        Query(f"sum by (model) ({live_gauge('protoken_replica_waiting_requests', 'model')})", "waiting {{model}}"),
        empty="no live replica",
    )
    unscored = graph(
        "Responses that wait for their score",
        _help("protoken_replica_unscored_responses"),
        WHOLE,
        Query(f"sum by (model) ({live_gauge('protoken_replica_unscored_responses', 'model')})", "{{model}}"),
        empty="no live replica",
    )
    scoring = graph(
        "Scoring lag",
        _help("protoken_replica_scoring_lag_seconds"),
        "s",
        Query(f"max by (model) ({live_gauge('protoken_replica_scoring_lag_seconds', 'model')})", "{{model}}"),
        steps=((300, "red"),),
        empty="no live replica",
    )
    attribution = _latency("Attribution of one response", "protoken_replica_attribution_seconds")
    replicas = graph(
        "Live replicas",
        "Replicas that told their series within the last minute.",
        WHOLE,
        Query(f"count by (model) ({live_gauge('protoken_replica_heartbeat_timestamp_seconds', 'model')})", "{{model}}"),
        empty="no live replica",
    )
    engine = graph(
        "Engine against bundle",
        f"{_help('protoken_replica_engine_difference_nats')} Beyond 0.1, or where an update lacks, it is another.",
        "suffix: nats",
        Query(f"max by (model) ({live_gauge('protoken_replica_engine_difference_nats', 'model')})", "{{model}}"),
        Query(f"sum by (model) ({live_gauge('protoken_replica_engine_differs', 'model')})", "other weights {{model}}"),
        steps=((0.1, "red"),),
        empty="no live replica",
    )
    publications = graph(
        "Publications that are not served",
        _help("protoken_replica_unserved_publications"),
        WHOLE,
        Query(f"max by (model) ({live_gauge('protoken_replica_unserved_publications', 'model')})", "{{model}}"),
        steps=((1, "red"),),
        empty="no live replica",
    )
    scores = ((unscored, 6), (scoring, 6), (engine, 6), (publications, 6))
    rows = ((9, ((places, 8), (attribution, 8), (replicas, 8))), (9, scores))
    return Band("Load and attribution", rows)


def _rounds() -> Band:
    published = graph(
        "Round published",
        _help("protoken_published_round"),
        WHOLE,
        Query(f"max by (model) ({once('protoken_published_round', 'model')})", "{{model}}"),
        empty="nothing is published",
    )
    since = graph(
        "Round published for",
        f"{_help('protoken_published_timestamp_seconds')} Shown is how long ago that was.",
        "s",
        Query(f"max by (model) ({age('protoken_published_timestamp_seconds', 'model')})", "{{model}}"),
        empty="nothing is published",
    )
    residual = graph(
        "Server's residual",
        _help("protoken_published_residual_ratio"),
        "percentunit",
        Query(f"max by (model) ({once('protoken_published_residual_ratio', 'model')})", "{{model}}"),
        empty="no bundle with recorded rounds is read here",
    )
    unsigned = graph(
        "Unsigned updates",
        _help("protoken_published_unsigned_updates"),
        WHOLE,
        Query(f"max by (model) ({once('protoken_published_unsigned_updates', 'model')})", "{{model}}"),
        empty="no bundle with recorded rounds is read here",
    )
    return Band("Rounds of training", ((8, ((published, 6), (since, 6), (residual, 6), (unsigned, 6))),))


def _ledger() -> Band:
    lag = graph(
        "Ledger lag",
        _help("protoken_replica_ledger_lag_seconds"),
        "s",
        Query(f"max by (model) ({live_gauge('protoken_replica_ledger_lag_seconds', 'model')})", "{{model}}"),
        steps=((60, "red"),),
        empty="no live replica",
    )
    spool = graph(
        "Receipts in the spool",
        _help("protoken_replica_spooled_receipts"),
        WHOLE,
        Query(f"sum by (model) ({live_gauge('protoken_replica_spooled_receipts', 'model')})", "{{model}}"),
        empty="no live replica",
    )
    booked = graph(
        "Receipts booked",
        _help("protoken_receipts_total"),
        "suffix: receipts/s",
        Query(f"sum by (model) ({once_per_second('protoken_receipts_total', 'model')})", "{{model}}"),
    )
    idle = graph(
        "Time since the last booking",
        "How long ago the last receipt was booked; long is normal where nobody asks.",
        "s",
        Query(age("protoken_ledger_last_booking_timestamp_seconds"), "since the last booking"),
        empty="nothing is booked yet",
    )
    return Band("Ledger", ((8, ((lag, 6), (spool, 6), (booked, 6), (idle, 6))),))


def _log() -> Band:
    checkpoint = graph(
        "Age of the last checkpoint",
        "How long ago the last checkpoint was signed; one is signed when there are rows to seal.",
        "s",
        Query(age("protoken_checkpoint_timestamp_seconds"), "age"),
        empty="no checkpoint yet",
    )
    unsealed = graph(
        "Rows that no checkpoint covers",
        _help("protoken_log_unsealed_rows"),
        WHOLE,
        Query(once("protoken_log_unsealed_rows"), "rows"),
    )
    oldest = graph(
        "Age of the oldest unsealed row",
        "How long the oldest row that no checkpoint covers has been in the books; 0 when there is none.",
        "s",
        Query(_unsealed_age(), "age"),
        steps=((60, "red"),),
    )
    leaves = graph(
        "Leaves of the log", _help("protoken_log_leaves"), "short", Query(once("protoken_log_leaves"), "leaves")
    )
    misdated = graph(
        "Receipts of wrong clocks",
        _help("protoken_ledger_misdated_receipts"),
        WHOLE,
        Query(once("protoken_ledger_misdated_receipts"), "receipts"),
    )
    shown = ((checkpoint, 5), (unsealed, 5), (oldest, 5), (leaves, 5), (misdated, 4))
    return Band("Log and checkpoints", ((8, shown),))


def _upkeep() -> Band:
    settling = graph(
        "Settlement and exporter",
        "How long the last preview of the open period took, and the exporter's reading of the ledger.",
        "s",
        Query(once("protoken_settlement_duration_seconds"), "settlement preview"),
        Query(once("protoken_exporter_reading_seconds"), "exporter's reading"),
    )
    events = graph(
        "Events in the books",
        _help("protoken_events_total"),
        "suffix: events/min",
        Query(f"60 * {once_per_second('protoken_events_total')}", "{{kind}}"),
    )
    firing = listing(
        "Alerts firing now",
        "Each with its severity; configs/prometheus/RUNBOOK.md says what to do.",
        Query(f"max by (alertname, severity) ({_FIRING})", "firing"),
        columns=(("alertname", "alert", ""), ("severity", "severity", "")),
        empty="no alert fires",
    )
    build = listing(
        "Version",
        _help("protoken_build_info"),
        Query(f"max by (instance, version) ({select('protoken_build_info')})", "there"),
        columns=(("instance", "instance", ""), ("version", "version", "")),
        empty="no exporter",
    )
    return Band("Upkeep", ((9, ((settling, 7), (events, 7), (firing, 5), (build, 5))),))


def _help(name: str) -> str:
    return series(name).help


def _generation_rate() -> str:
    return per_second("protoken_replica_generated_tokens_total", "model", "model")


def _latency(title: str, name: str) -> AnyPanel:
    """A graph of the median and of the 95th percentile of a histogram of seconds."""
    queries = [Query(quantile(part, name, "model", "model"), f"{word} {{{{model}}}}") for part, word in _PERCENTILES]
    text = f"{_help(name)} Half of the observations stay below p50, 95 of 100 below p95."
    return graph(title, text, "s", *queries)


def _imbalance() -> str:
    """Generated tokens that are neither a client's nor the commons' nor pending, the most on any exporter."""
    generated = select("protoken_generated_tokens_total")
    parts = f"{select('protoken_attributed_tokens_total')} or {select('protoken_commons_tokens_total')}"
    pending = select("protoken_pending_tokens_total")  # of the same labels as the commons', so they are no union
    sums = " - ".join(f"sum by (job, instance) ({each})" for each in (generated, parts, pending))
    return f"max(abs({sums}))"


def _unsealed_age() -> str:
    oldest = once("protoken_log_oldest_unsealed_timestamp_seconds")
    return f"(time() - {oldest}) * ({oldest} > bool 0)"
