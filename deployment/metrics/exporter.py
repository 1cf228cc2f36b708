"""The exporter: `/metrics` of the ledger on a port of its own, apart from the service's proxy.

The first reading of a big ledger takes seconds; it begins at once, in a thread of its own. A scrape that comes before
its end waits for it for a moment and is then answered 503: no series at all rather than half of them, so that `up` is 0
as it is while the ledger is away. From then on each scrape reads what is new, and the thread renews the preview.
"""

import logging
import threading
from collections.abc import Iterable
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app, start_http_server

from deployment.errors import StartError
from deployment.metrics.accept import preferred_format
from deployment.metrics.ledger import LedgerCollector
from deployment.metrics.preview import PREVIEW_EVERY_S, Previews
from rewards.errors import LedgerError
from rewards.ledger.ledger import Ledger

_LOG = logging.getLogger(__name__)
FIRST_READING_PATIENCE_S = 2.0
"""How long a scrape waits for the end of the first reading."""
_RETRY_S = 1.0
_END_TIMEOUT_S = 10.0


class Exporter:
    """Serves `/metrics` from threads of its own until it is closed.

    Args:
        ledger_url: the ledger, prepared; a login that may only read will do.
        host: address to listen on.
        port: port to listen on.
        policy: file of the settlement policy, for previews of the open period; None leaves their series out.

    Raises:
        LedgerError: the ledger is missing or not at head.
        PolicyError: the policy's file cannot be read or is none.
        StartError: the port cannot be had.
    """

    def __init__(self, ledger_url: str, host: str, port: int, policy: Path | None = None) -> None:
        self._ledger = Ledger(ledger_url)
        self._previews = None if policy is None else Previews(self._ledger, policy)
        self._collector = LedgerCollector(self._ledger, self._previews)
        self._is_read = threading.Event()
        self._closing = threading.Event()
        registry = CollectorRegistry(auto_describe=False)  # it would describe by reading
        registry.register(self._collector)
        self._metrics = make_wsgi_app(registry)
        try:
            self._server, self._serving = start_http_server(port, addr=host, registry=CollectorRegistry())
        except OSError as error:
            self._ledger.close()
            raise StartError(f"the exporter cannot listen on {host}:{port}: {error.strerror}") from error
        self._server.set_app(self._answer)
        self._thread = threading.Thread(target=self._run, name="protoken-exporter", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering, and end the threads."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_END_TIMEOUT_S)
        self._ledger.close()

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not self._is_read.wait(FIRST_READING_PATIENCE_S):
            return _unavailable(start_response, "the ledger is being read for the first time; scrape again")
        try:
            wanted = {**environ, "HTTP_ACCEPT": preferred_format(environ.get("HTTP_ACCEPT", ""))}
            answer: Iterable[bytes] = self._metrics(wanted, start_response)
        except LedgerError as error:
            return _unavailable(start_response, str(error))
        return answer

    def _run(self) -> None:
        while not self._is_read.is_set() and not self._closing.is_set():
            try:
                self._collector.read()
                self._is_read.set()
            except LedgerError as error:
                _LOG.warning("the first reading of the ledger failed and is tried again: %s", error)
                self._closing.wait(_RETRY_S)
            except Exception:  # noqa: BLE001 - whatever it was, or no scrape would ever be answered again
                _LOG.exception("the first reading of the ledger failed and is tried again")
                self._closing.wait(_RETRY_S)
        while self._previews is not None and not self._closing.is_set():
            self._previews.renew()
            self._closing.wait(PREVIEW_EVERY_S)


def _unavailable(start_response: StartResponse, reason: str) -> list[bytes]:
    start_response("503 Service Unavailable", [("Content-Type", "text/plain; charset=utf-8"), ("Retry-After", "5")])
    return [f"# {reason}\n".encode()]
