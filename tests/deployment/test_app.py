"""The composition root where it refuses to start: at once, by name, and before Ray is there."""

import socket
from pathlib import Path

import pytest
import ray

from attribution import BundleError
from deployment.app import serving
from deployment.errors import StartError
from deployment.settings import Settings


@pytest.mark.parametrize("name", ["port", "replica_metrics_port"])
def test_taken_port_is_named(tmp_path: Path, name: str) -> None:
    """A port that somebody listens on is refused, and no ledger is made."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        ports = {"port": other.getsockname()[1]}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings(bundle=tmp_path, ledger=f"sqlite:///{tmp_path}/ledger.db", **(ports | {name: port}))
        with pytest.raises(StartError, match=f"127.0.0.1:{port}"), serving(settings):
            pytest.fail("the service started")

    assert not ray.is_initialized()
    assert [] == list(tmp_path.iterdir())


def test_missing_bundle_is_named(tmp_path: Path) -> None:
    """A bundle that is not there is refused by this process, not by a replica that is started again and again."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    settings = Settings(bundle=tmp_path / "absent", ledger=ledger, port=port, replica_metrics_port=0)

    with pytest.raises(BundleError, match="absent"), serving(settings):
        pytest.fail("the service started")
    assert not ray.is_initialized()
