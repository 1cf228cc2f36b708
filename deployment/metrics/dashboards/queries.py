"""PromQL over the catalogue: what a panel may ask, so that no panel repeats the traps of these series.

Three of them. Two exporters on one ledger tell the same figures, so that figures of the ledger are taken once, never
added over instances. Ray goes on exporting what a dead replica told last, so that a replica's gauge counts only beside
a fresh heartbeat. And Ray makes up a histogram's sum from its buckets, so that there are quantiles here and no means.
"""

from dataclasses import dataclass
from typing import Final

from deployment.metrics.catalogue import series

HEARTBEAT_S: Final = 60
"""A replica that has told nothing for so long counts as dead; it tells every few seconds."""
_WINDOW: Final = "$__rate_interval"
_HEARTBEAT: Final = "protoken_replica_heartbeat_timestamp_seconds"


@dataclass(frozen=True)
class Query:
    """One query of a panel.

    Attributes:
        expr: PromQL, with the board's variables in it.
        legend: how a series is called, with `{{label}}` in it.
    """

    expr: str
    legend: str


def select(name: str, *filters: str, suffix: str = "") -> str:
    """The series of a name, of the jobs and instances that the reader chose.

    Args:
        name: as the catalogue has it.
        filters: labels of it whose values the reader chooses by the board's variable of that name.
        suffix: `_bucket` for a histogram's buckets.

    Raises:
        KeyError: there is no such series, or it has no such label.
    """
    each = series(name)
    if missing := set(filters) - set(each.labels):
        raise KeyError(f"{name} has no label {sorted(missing)}")
    matchers = ", ".join(f'{label}=~"${label}"' for label in ("job", "instance", *filters))
    return f"{each.exported_name}{suffix}{{{matchers}}}"


def once(name: str, *filters: str) -> str:
    """A figure of the ledger with the labels that the catalogue gives it, however many exporters tell it."""
    return _without_instances(name, select(name, *filters))


def once_per_second(name: str, *filters: str) -> str:
    """How fast a counter of the ledger grows, with its labels, however many exporters tell it."""
    return _without_instances(name, f"rate({select(name, *filters)}[{_WINDOW}])")


def per_second(name: str, by: str, *filters: str) -> str:
    """How fast a counter grows over all replicas; a dead replica's stands still, and so adds nothing."""
    return f"sum by ({by}) (rate({select(name, *filters)}[{_WINDOW}]))"


def quantile(part: float, name: str, by: str, *filters: str) -> str:
    """The value that this part of a histogram's observations does not exceed; no series while there are none."""
    buckets = select(name, *filters, suffix="_bucket")
    rates = f"sum by (le, {by}) (rate({buckets}[{_WINDOW}]))"
    return f"histogram_quantile({part}, {rates}) >= 0"  # which drops the NaN of a time with no observations


def live_gauge(name: str, *filters: str) -> str:
    """A gauge of the replicas that are alive, one series each."""
    heartbeat = f"time() - {select(_HEARTBEAT, *filters)} < {HEARTBEAT_S}"
    return f"({select(name, *filters)} and on (job, instance, replica) ({heartbeat}))"


def age(name: str, *filters: str) -> str:
    """How long ago a moment of the ledger was, in seconds; no series while there was none."""
    return f"(time() - ({once(name, *filters)} > 0))"


def _without_instances(name: str, expr: str) -> str:
    return f"max by ({', '.join(('job', *series(name).labels))}) ({expr})"
