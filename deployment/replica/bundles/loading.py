"""Bundles brought into memory by the hash of their model, from wherever they lie, and tried again where that fails.

What lies in a folder is compared with what was published: another manifest would pay others than the log says.
"""

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from attribution.bundle.bundle import manifest_of, manifest_sha256, open_bundle
from attribution.bundle.manifest import MANIFEST_NAME
from attribution.errors import BundleError
from deployment.health import watched_parts
from deployment.replica.bundles.publication_index import PublishedBundles
from deployment.replica.bundles.served_round import ServedRound
from rewards.errors import LedgerError

_LOG = logging.getLogger(__name__)
RETRY_S = 30.0
"""After how long a bundle is tried again that could not be loaded."""


class Load(Protocol):
    """Brings the bundle of a folder into memory: `RoundLoader`, or what stands in for it."""

    def __call__(self, folder: Path, *, serves: bool) -> ServedRound:
        """To be served, or only to score what was generated with it."""


@dataclass(frozen=True)
class _Failure:
    """A bundle that could not be loaded: when that was first so, and when last."""

    first: float
    last: float


class Loading:
    """Loads what was published; used by one thread, but for `moved_round`.

    Args:
        published: what was published, and where it lies.
        load: brings a bundle into memory.
        patience_s: how long a bundle is tried before what waits for its score is given up.
    """

    def __init__(self, published: PublishedBundles, load: Load, patience_s: float) -> None:
        self._published = published
        self._load = load
        self._patience_s = patience_s
        self._failures: dict[tuple[str, bool], _Failure] = {}  # by the model's hash, and whether it was to be served

    def load(self, model_sha256: str, *, serves: bool) -> ServedRound:
        """A bundle by the hash of its model, from the first place where it lies.

        Raises:
            BundleError: it lies in none, or is damaged, or is another one than was published.
            LedgerError: the ledger, which tells the places, cannot be read.
        """
        manifests = self._published.manifests(model_sha256)
        problems = []
        for folder in self._published.folders(model_sha256):
            try:
                _require(folder, model_sha256, manifests)
                return self._load(folder, serves=serves)
            except BundleError as error:
                problems.append(str(error))
        raise BundleError("; ".join(problems) or f"no bundle with model {model_sha256} was published")

    def attempt(self, model_sha256: str, *, serves: bool) -> ServedRound | None:
        """As `load`; None where it cannot be loaded now, which is told once.

        Raises:
            LedgerError: the ledger, which tells where it lies, cannot be read.
        """
        key = model_sha256, serves
        failure = self._failures.get(key)
        if failure is not None and time.monotonic() < failure.last + min(RETRY_S, self._patience_s):
            return None
        try:
            served = self.load(model_sha256, serves=serves)
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, what is served goes on
            if failure is None:
                _LOG.error("bundle %s cannot be served, and is tried again: %s", model_sha256[:8], error)
            now = time.monotonic()
            self._failures[key] = _Failure(now if failure is None else failure.first, now)
            return None
        self._failures.pop(key, None)
        return served

    def is_given_up(self, model_sha256: str) -> bool:
        """Whether a bundle could not be loaded to score with it, and still not once patience was over."""
        failure = self._failures.get((model_sha256, False))
        return failure is not None and failure.last - failure.first >= self._patience_s

    def forget_all_but(self, awaited: Collection[str]) -> None:
        """Forget which bundles could not be loaded to score with: those that nothing waits for, by their model's hash.

        What comes to wait for one later is given all the time there is.
        """
        self._failures = {key: each for key, each in self._failures.items() if key[1] or key[0] in awaited}

    def moved_round(self, served: ServedRound) -> ServedRound | None:
        """A round that is in memory, watched in another folder where its bundle was published; None without one."""
        model_sha256 = served.card.global_sha256
        try:
            manifests, folders = self._published.manifests(model_sha256), self._published.folders(model_sha256)
        except LedgerError:
            return None
        for folder in folders if manifests else ():
            try:
                if folder.resolve() != served.folder.resolve():
                    _require(folder, model_sha256, manifests)
                    return replace(served, folder=folder, check=watched_parts.bundle("bundle", folder, open_bundle))
            except (BundleError, OSError) as error:
                _LOG.debug("%s is not the bundle of %s: %s", folder, served.folder, error)
        return None


def _require(folder: Path, model_sha256: str, manifests: Collection[str]) -> None:
    """Refuse a folder in which another bundle lies than was published; without a publication, another model.

    Raises:
        BundleError: it does.
    """
    if manifest_of(folder).global_.sha256 != model_sha256:
        raise BundleError(f"{folder} holds another bundle now")
    digest = manifest_sha256(folder)
    if manifests and digest not in manifests:
        raise BundleError(
            f"{folder / MANIFEST_NAME} has SHA-256 {digest}, and the one that was published with this global "
            f"model has {', '.join(sorted(manifests))}: put that bundle back, as who earns by it must stay as it was"
        )
