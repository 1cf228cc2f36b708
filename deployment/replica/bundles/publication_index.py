"""What was published, for whoever loads bundles: which one is to serve, and where each of them lies.

Reads the ledger anew each time, by a login that may only book. Loads nothing.
"""

from collections.abc import Sequence
from pathlib import Path

from attribution.bundle.bundle import manifest_of
from attribution.errors import BundleError
from rewards.store import publications
from rewards.store.database import Database
from rewards.store.publications import Publication

POLL_S = 2.0
"""How often a replica looks what is published, in seconds."""


class PublishedBundles:
    """The bundle of one consortium that is to serve, and the place of any bundle of the ledger.

    Args:
        database: of the ledger.
        consortium: whose bundle is to serve.
        places: folders that the service's settings name, where bundles lie too.
    """

    def __init__(self, database: Database, consortium: str, places: Sequence[Path]) -> None:
        self._database = database
        self._consortium = consortium
        self._places = places

    def standing(self) -> list[Publication]:
        """What was published and not taken back, the newest first; that one is to serve.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self._database.read() as connection:
            return publications.standing(connection, self._consortium)[::-1]

    def folders(self, model_sha256: str) -> list[Path]:
        """Where a bundle may lie, of any consortium: as a setting has it, else as it was published last; or nowhere.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self._database.read() as connection:
            told = publications.history(connection)[::-1]
        folders = [place for place in self._places if _holds(place, model_sha256)]
        folders += [Path(each.bundle) for each in told if each.model_sha256 == model_sha256]
        return list(dict.fromkeys(folders))

    def manifests(self, model_sha256: str) -> frozenset[str]:
        """The hashes of the manifests that a model was published with; none where it never was.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self._database.read() as connection:
            told = publications.history(connection)
        return frozenset(each.manifest_sha256 for each in told if each.model_sha256 == model_sha256)


def _holds(place: Path, model_sha256: str) -> bool:
    try:
        return manifest_of(place).global_.sha256 == model_sha256
    except BundleError:
        return False
