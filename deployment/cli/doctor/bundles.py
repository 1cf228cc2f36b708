"""The bundles that are set: whole, fit for this machine, and against what the ledger has published."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from deployment.cli.doctor.findings import DoubtError, Finding, finding_of
from deployment.cli.extras import require_extra
from deployment.settings import Settings
from rewards.store import clients, publications
from rewards.store.database import connect_unchanged


def look_at_bundles(settings: Settings, ledger: str | None) -> Iterator[Finding]:
    """What was found of each bundle, and of all of them side by side; `ledger` is its URL, if it can be read."""
    for folder in settings.bundles:
        yield finding_of(f"bundle {folder}", partial(_look_at_bundle, folder, settings, ledger))
    if settings.more_bundles or settings.method == "paper":
        yield finding_of("bundles together", partial(_look_at_all, settings))


def _look_at_bundle(folder: Path, settings: Settings, ledger: str | None) -> str:
    require_extra("attribution", "a bundle")
    from attribution.bundle.bundle import open_bundle  # noqa: PLC0415 - takes PyTorch, which may not be there
    from deployment.cluster.machine import require_memory  # noqa: PLC0415

    manifest = open_bundle(folder).manifest
    require_memory(settings, bundle=folder)
    if ledger is not None:
        _require_published(folder, ledger)
    return f"every hash of round {manifest.round} of {manifest.consortium} is right; `consortium verify` recomputes it"


def _look_at_all(settings: Settings) -> str:
    require_extra("attribution", "a bundle")
    from deployment.replica.bundles.servable import open_bundles  # noqa: PLC0415

    return f"{len(open_bundles(settings))} consortia, each under its own name, by the method {settings.method}"


def _require_published(folder: Path, ledger: str) -> None:
    """Hold a bundle against what the ledger has published of its consortium.

    Raises:
        PublicationError: it is another consortium's of the same name, or takes another bundle's global model.
        BundleError: what is published last cannot be opened.
        DoubtError: another round is published, or it is of a consortium that is new to the ledger.
    """
    from attribution.bundle.bundle import manifest_sha256, open_bundle  # noqa: PLC0415
    from deployment.replica.bundles.publish import require_same_consortium  # noqa: PLC0415
    from deployment.replica.bundles.servable import word_of_another  # noqa: PLC0415

    bundle = open_bundle(folder)
    manifest, model = bundle.manifest, bundle.manifest.global_.sha256
    with connect_unchanged(ledger) as connection:
        known, told = clients.registrations(connection), publications.history(connection, manifest.consortium)
        publications.require_own_model(
            connection, bundle=str(folder), model_sha256=model, manifest_sha256=manifest_sha256(folder)
        )
    if manifest.consortium not in known:
        if known:
            names = ", ".join(sorted(known))
            raise DoubtError(f"the ledger knows {names}, and not {manifest.consortium!r}, which a start would add")
        return
    require_same_consortium(bundle, known)
    standing = publications.standing_since(told)
    if standing is None or all(each.model_sha256 != model for each in told):
        raise DoubtError(f"round {manifest.round} was never published: the next start puts it in service")
    if (word := word_of_another(standing[0], bundle)) is not None:
        open_bundle(Path(standing[0].bundle))
        raise DoubtError(word)
