"""The ledger as Prometheus series: every series of the catalogue whose source is the ledger, and no other.

The books are the only truth: every counter is a sum over receipts or events, so that it survives restarts, is the same
on any number of exporters, and never falls; what was reversed is counted beside what was booked, and not taken off it.
Nothing is kept in counters of a library, so that nothing is registered twice, and nothing is ever pickled. Reads only.
"""

import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from deployment.metrics.catalogue import DURATION_BUCKETS_S
from deployment.metrics.preview import Previews
from deployment.metrics.rounds import RoundReader
from deployment.metrics.snapshot import LedgerSnapshot, SnapshotReader
from deployment.metrics.values import Families
from rewards.credit import COMMONS, MICRO_CREDITS_PER_TOKEN, PENDING
from rewards.ledger.ledger import Ledger
from rewards.periods import POSSIBLE, holds
from rewards.views.standing import ConsortiumTotals

_SLOTS = len(DURATION_BUCKETS_S) + 1


class LedgerCollector(Collector):
    """Reads on each scrape what is new since the last one; the ledger is append-only, so that is enough.

    Args:
        ledger: the ledger.
        previews: of the open period; without them its series are absent.
    """

    def __init__(self, ledger: Ledger, previews: Previews | None = None) -> None:
        self._reader = SnapshotReader(ledger)
        self._previews = previews
        self._rounds = RoundReader()
        self._reading = threading.Lock()

    def read(self) -> LedgerSnapshot:
        """Read what is new; the first time that is everything, and may take long.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self._reading:
            return self._reader.read()

    def collect(self) -> Iterator[Metric]:
        """Every series, as of now; all of them or none.

        Raises:
            LedgerError: the ledger cannot be read; the scrape fails, and `up` tells.
        """
        reading = self.read()
        families = Families()
        _set_booked(families, reading)
        _set_open_period(families, reading)
        _set_settled(families, reading, self._previews)
        self._set_rounds(families, reading)
        _set_books(families, reading)
        yield from families

    def _set_rounds(self, families: Families, reading: LedgerSnapshot) -> None:
        """Which round is published, and what its bundle records, where that lies here."""
        for model, (publication, since_us) in reading.published.items():
            families.set("protoken_published_round", publication.round, model)
            families.set("protoken_published_timestamp_seconds", since_us / 1_000_000, model)
            with self._reading:
                figures = self._rounds.read(Path(publication.bundle), publication.manifest_sha256)
            if figures is not None:
                families.set("protoken_published_unsigned_updates", figures.unsigned, model)
            if figures is not None and figures.residual_ratio is not None:
                families.set("protoken_published_residual_ratio", figures.residual_ratio, model)


def _set_booked(families: Families, reading: LedgerSnapshot) -> None:
    """What was booked and reversed, by model; a registered client that earned nothing shows its zero."""
    for client, name in reading.clients.names.items():
        families.info("protoken_client_info", client=client, name=name)
    for model in dict.fromkeys((*reading.clients.models, *reading.standing.models)):
        totals = reading.standing.models.get(model, ConsortiumTotals(durations=(0,) * _SLOTS))
        labels = reading.clients.models.get(model, ())
        families.set("protoken_generated_tokens_total", totals.tokens, model)
        for client, credit in reading.clients.fold(totals.credit, labels).items():
            families.set("protoken_attributed_tokens_total", credit / MICRO_CREDITS_PER_TOKEN, client, model)
        commons = totals.credit.get(COMMONS, 0)
        families.set("protoken_commons_tokens_total", commons / MICRO_CREDITS_PER_TOKEN, model)
        pending = totals.credit.get(PENDING, 0)
        families.set("protoken_pending_tokens_total", pending / MICRO_CREDITS_PER_TOKEN, model)
        families.set("protoken_receipts_total", totals.receipts, model)
        families.set("protoken_reversals_total", totals.reversals, model)
        families.set("protoken_reversed_tokens_total", totals.reversed_tokens, model)
        for client, credit in reading.clients.fold(totals.reversed_credit, labels).items():
            families.set("protoken_reversed_client_tokens_total", credit / MICRO_CREDITS_PER_TOKEN, client, model)
        families.observe(
            "protoken_request_duration_seconds",
            totals.durations or (0,) * _SLOTS,
            totals.duration_us / 1_000_000,
            reading.exemplars.get(model, {}),
            model,
        )


def _set_open_period(families: Families, reading: LedgerSnapshot) -> None:
    opened = reading.standing.open
    whole = sum(opened.credit.values())
    families.set("protoken_open_period_start_timestamp_seconds", (opened.opened_at_us or 0) / 1_000_000)
    families.set("protoken_open_period_tokens", opened.tokens)
    for client, credit in reading.clients.fold(opened.credit, reading.clients.all).items():
        families.set("protoken_share_ratio", credit / whole if whole else 0.0, client)
    families.set("protoken_commons_share_ratio", opened.credit.get(COMMONS, 0) / whole if whole else 0.0)
    families.set("protoken_pending_share_ratio", opened.credit.get(PENDING, 0) / whole if whole else 0.0)


def _set_settled(families: Families, reading: LedgerSnapshot, previews: Previews | None) -> None:
    """What would be paid now, where a policy is set; what was awarded; periods and holds."""
    clients, paid = reading.clients, dict(reading.paid)
    if previews is not None:
        paid.setdefault(previews.currency, {})
        outlook = previews.of(reading.standing.open.previous)
        if outlook is not None:
            currency = outlook.settlement.policy.currency
            previewed = {line.account: line.payout for line in outlook.settlement.lines}
            families.set("protoken_pool_preview_minor_units", outlook.settlement.pool, currency)
            for client, amount in clients.fold(previewed, clients.all).items():
                families.set("protoken_payout_preview_minor_units", amount, client, currency)
            families.set("protoken_settlement_duration_seconds", outlook.seconds)
    for currency, payouts in paid.items():
        for client, amount in clients.fold(payouts, clients.all).items():
            families.set("protoken_final_payout_minor_units_total", amount, client, currency)
    states = [period.state for period in reading.book.periods]
    for state in POSSIBLE:
        families.set("protoken_periods", states.count(state), state)
    for scope in holds.KINDS:
        families.set("protoken_holds", len(reading.book.held_targets(scope)), scope)


def _set_books(families: Families, reading: LedgerSnapshot) -> None:
    condition = reading.condition
    families.set("protoken_ledger_last_booking_timestamp_seconds", condition.booked_at_us / 1_000_000)
    families.set("protoken_ledger_misdated_receipts", reading.misdated)
    families.set("protoken_log_leaves", condition.sealed)
    families.set("protoken_log_unsealed_rows", condition.unsealed)
    families.set("protoken_log_oldest_unsealed_timestamp_seconds", condition.unsealed_since_us / 1_000_000)
    families.set("protoken_checkpoint_timestamp_seconds", condition.sealed_at_us / 1_000_000)
    for kind, count in sorted(reading.events.items()):
        families.set("protoken_events_total", count, kind)
    families.set("protoken_exporter_reading_seconds", reading.seconds)
    families.info("protoken_build_info", version=version("protoken"))
