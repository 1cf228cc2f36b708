"""Our service as `protoken serve` starts it, in a process of its own, its ledger in a folder of its own."""

import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from attribution.bundle.bundle import open_bundle
from deployment.cli.service.service_process import service_apart
from deployment.settings import Settings, pepper_of
from rewards.credit import PENDING
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from tests.benchmarks.serving.client import Server

USUAL = {"credit_fraction": "1", "serve_dtype": "float32"}
"""What the service does where it has no setting of that name."""


def lacking(settings: Mapping[str, str]) -> list[str]:
    """Settings that the service does not have, and whose value is not what it does anyway."""
    return [name for name in settings.keys() - Settings.model_fields.keys() if USUAL.get(name) != settings[name]]


@contextmanager
def our_service(bundle: Path, settings: Mapping[str, str]) -> Iterator[Server]:
    """The service on free ports of loopback.

    Args:
        bundle: what it serves.
        settings: beside those that say where it keeps things; those that it lacks are left out.
    """
    with tempfile.TemporaryDirectory(dir=".", prefix="bench-") as name:
        folder = Path(name).absolute()
        ledger = f"sqlite:///{folder}/ledger.db"
        Ledger.prepare(ledger)
        with closing(KeyRing(ledger, pepper_of(ledger, folder / "pepper"))) as ring:
            key = ring.create("application", "benchmark", actor="benchmark")
        places = {each: str(folder / each) for each in ("spool", "signing_key")}
        places |= {"bundle": str(bundle), "ledger": ledger, "pepper_file": str(folder / "pepper")}
        known = {each: value for each, value in settings.items() if each in Settings.model_fields}
        known |= {each: value for each, value in settings.items() if each.startswith("engine_")}
        with service_apart(places | known, folder / "serve.log") as running:
            usage = {"stream_options": {"include_usage": True}}
            consortium = open_bundle(bundle).manifest.consortium
            yield Server(f"{running.address}/v1", consortium, key, usage, running.process.pid, ledger)


def end_in_order() -> None:
    """Let SIGTERM end this process as an exception would: services that it started then end too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def measured_share(ledger: str) -> float:
    """Of the tokens that a ledger holds, the share whose credit is not pending."""
    with closing(Ledger(ledger)) as books:
        balances = books.balances()
    return 1 - balances.get(PENDING, 0) / sum(balances.values())
