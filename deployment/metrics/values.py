"""Values by series and labels, as the metric families of prometheus_client that the catalogue describes.

The names, kinds, labels and helps of what is exported are written in the catalogue alone. Knows no ledger.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar

from deployment.metrics.catalogue import MOST_CLIENTS, OTHER, Series, series
from rewards.credit import COMMONS, PENDING


class ClientLabels:
    """Which clients have a label of their own: the first `MOST_CLIENTS`; the others, and names nobody registered, none.

    Args:
        registered: (consortium, client) of everybody, in the order of registration.
        names: what each consortium's clients are called.
    """

    def __init__(
        self, registered: Iterable[tuple[str, str]], names: Mapping[str, Mapping[str, str]] = MappingProxyType({})
    ) -> None:
        pairs = list(registered)
        self._own = frozenset(list(dict.fromkeys(client for _, client in pairs))[:MOST_CLIENTS])
        self.all = tuple(dict.fromkeys(self._of(client) for _, client in pairs))
        called = {client: name for clients in names.values() for client, name in clients.items()}
        self.names = {label: called.get(label, label) for label in self.all}
        self.models: dict[str, tuple[str, ...]] = {}
        for consortium, client in pairs:
            labels = self.models.get(consortium, ())
            self.models[consortium] = tuple(dict.fromkeys((*labels, self._of(client))))

    def fold(self, amounts: Mapping[str, int], labels: Iterable[str]) -> dict[str, int]:
        """Label -> amount of all clients under it; 0 for each of the labels without any."""
        amount_by_label = dict.fromkeys(labels, 0)
        for account, amount in amounts.items():
            if account not in (COMMONS, PENDING):
                label = self._of(account)
                amount_by_label[label] = amount_by_label.get(label, 0) + amount
        return amount_by_label

    def _of(self, client: str) -> str:
        return client if client in self._own else OTHER


class Families:
    """Families that are filled value by value, and then given in the order of the series."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}

    def set(self, name: str, value: float, *labels: str) -> None:
        """The value of a counter or a gauge under the values of its labels, which come in the catalogue's order.

        Raises:
            KeyError: the catalogue knows no such series.
        """
        family = self._family(series(name))
        assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
        family.add_metric(labels, value)

    def observe(
        self, name: str, counts: Sequence[int], total: float, exemplars: Mapping[int, Exemplar], *labels: str
    ) -> None:
        """A histogram: how often each slot was met, the one above all bounds last; the sum; a slot -> its exemplar."""
        described = series(name)
        family = self._family(described)
        assert isinstance(family, HistogramMetricFamily)
        buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
        below = 0
        for slot, (bound, count) in enumerate(zip((*described.buckets, "+Inf"), counts, strict=True)):
            below += count
            exemplar = exemplars.get(slot)
            buckets.append((str(bound), below) if exemplar is None else (str(bound), below, exemplar))
        family.add_metric(labels, buckets, total)

    def info(self, name: str, /, **values: str) -> None:
        """What does not change: words, and no number."""
        family = self._family(series(name))
        assert isinstance(family, InfoMetricFamily)
        family.add_metric([], values)

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._families.values())

    def _family(self, described: Series) -> Metric:
        return self._families.setdefault(described.name, _empty(described))


def _empty(described: Series) -> Metric:
    """The family of a series, without a value."""
    labels = list(described.labels)
    match described.kind:
        case "counter":
            return CounterMetricFamily(described.name, described.help, labels=labels)
        case "gauge":
            return GaugeMetricFamily(described.name, described.help, labels=labels)
        case "histogram":
            return HistogramMetricFamily(described.name, described.help, labels=labels)
        case "info":
            return InfoMetricFamily(described.name.removesuffix("_info"), described.help)
