"""What the catalogue of series promises: names, labels that are few, and no money from replicas."""

import pytest
from fastapi.testclient import TestClient

from deployment.metrics.catalogue import CATALOGUE, Series, of_source, series

LABELS = {"client", "name", "model", "outcome", "currency", "state", "kind", "scope", "version"}
MONEY_LABELS = {"client", "currency"}


@pytest.mark.parametrize("each", CATALOGUE.values(), ids=CATALOGUE)
def test_each_series_keeps_the_conventions(each: Series) -> None:
    """Its name tells what it is, its labels are of the few that are bounded, and only a histogram has buckets."""
    assert each.name.startswith("protoken_replica_" if each.source == "replica" else "protoken_")
    assert (each.kind == "counter") == each.name.endswith("_total")
    assert (each.kind == "info") == each.name.endswith("_info")
    assert set(each.labels) <= LABELS
    assert (each.kind == "histogram") == bool(each.buckets)
    assert list(each.buckets) == sorted(set(each.buckets))
    assert each.help.endswith(".")
    assert each is series(each.name)


def test_no_replica_tells_money() -> None:
    """Credit, shares and payouts are the ledger's alone: two replicas, or a dead one, cannot double them."""
    told = {each.name: MONEY_LABELS & set(each.labels) for each in of_source("replica")}

    assert told
    assert [] == [name for name, labels in told.items() if labels]
    assert {each.name for source in ("ledger", "replica") for each in of_source(source)} == CATALOGUE.keys()  # type: ignore[arg-type]


def test_no_metrics_behind_the_proxy(admin: TestClient, anonymous: TestClient) -> None:
    """Serve's proxy would ask any one replica, so there is nothing to scrape there, for whoever asks."""
    assert [404, 401] == [caller.get("/metrics").status_code for caller in (admin, anonymous)]
