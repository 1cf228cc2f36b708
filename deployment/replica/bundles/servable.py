"""The bundles that a service is set to serve: opened, fit to be served side by side, and which round is served of each.

Puts nothing in service: that is `publish`.
"""

from collections.abc import Sequence

from attribution.bundle.bundle import Bundle, open_bundle
from deployment.errors import StartError
from deployment.replica.bundles.served_round import require_last_round
from deployment.settings import Settings
from rewards.store.publications import Publication


def open_bundles(settings: Settings) -> list[Bundle]:
    """The bundle of each consortium that is served.

    Raises:
        StartError: two of them are of one consortium.
        BundleError: one is missing, altered or malformed, or the method cannot score it.
    """
    bundles = [open_bundle(folder) for folder in settings.bundles]
    require_servable(bundles, settings)
    return bundles


def require_servable(bundles: Sequence[Bundle], settings: Settings) -> None:
    """Refuse bundles that cannot be served together as the settings say.

    Raises:
        StartError, BundleError: as of `open_bundles`.
    """
    names = [bundle.manifest.consortium for bundle in bundles]
    for bundle in bundles:
        if settings.method == "paper":
            require_last_round(bundle)
        if names.count(bundle.manifest.consortium) > 1:
            raise StartError(
                f"{bundle.path} and another bundle are both of consortium {bundle.manifest.consortium!r}, under whose "
                "name one model is served: `protoken consortium publish` puts a new round in service"
            )


def word_of_another(publication: Publication, bundle: Bundle) -> str | None:
    """What serves where that is not what the setting names; None where it is."""
    if publication.model_sha256 == bundle.manifest.global_.sha256:
        return None
    return (
        f"round {publication.round} of {bundle.manifest.consortium} is served, from {publication.bundle}, which was "
        f"published last; the setting `bundle` names round {bundle.manifest.round}"
    )
