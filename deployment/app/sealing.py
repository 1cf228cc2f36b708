"""The sealer of the log as a Serve deployment: on a cluster no process of our own lives as long as the service does."""

from deployment.errors import WorkerDiedError
from deployment.health.signing_key import signing_key
from deployment.settings import Settings
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import Sealer, log_origin


class LogSealer:
    """Seals the log for as long as it lives. One is enough; of two, as while one takes over, each leaf is sealed once.

    Raises:
        LedgerError: the ledger is missing or not at head.
        SignatureError: the signing key's file cannot be used, or holds another ledger's.
        StartError: the signing key is missing.
    """

    def __init__(self, settings: Settings) -> None:
        self._ledger = Ledger(settings.ledger)
        key = signing_key(settings.signing_key, self._ledger)
        self._sealer = Sealer(self._ledger, key, log_origin(self._ledger, key), settings.seal_interval_s)

    def check_health(self) -> None:
        """Called by Serve now and then.

        Raises:
            WorkerDiedError: nothing is sealed any more; Serve starts another one.
        """
        if not self._sealer.alive:
            raise WorkerDiedError("the thread that seals the log died; see the replica's log")

    def __del__(self) -> None:
        """Called by Serve when it stops: what was booked until now is sealed."""
        if hasattr(self, "_sealer"):
            self._sealer.close()
            self._ledger.close()
