"""`protoken consortium publish | rollback | rounds`: which bundle of a consortium is served, while it is served."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from attribution.bundle.bundle import Bundle, open_bundle, verify_bundle
from attribution.errors import BundleError
from deployment.cli.options import ACTOR, AS_SET, Config, Json, LedgerUrl, date
from deployment.cli.output import print_json, say
from deployment.cli.tables import print_table
from deployment.replica.bundles.publication_index import POLL_S
from deployment.replica.bundles.publish import publish, roll_back
from rewards.errors import PublicationError
from rewards.ledger.ledger import Ledger
from rewards.store import publications
from rewards.store.publications import Publication

_Consortium = Annotated[str, typer.Argument(metavar="CONSORTIUM", help="Name of the consortium and of its model.")]

_NEXT_WORDS = (
    f"replicas look every {POLL_S:g} s, load it beside what they serve, and then serve it; "
    "GET /v1/models tells by `global_sha256` which is served, and GET /health where it cannot be loaded"
)


def publish_bundle(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of the bundle, a new one for each round.")],
    ledger: LedgerUrl = AS_SET,
    _config: Config = None,
    as_json: Json = False,
) -> None:
    """Serve a bundle from now on, without a restart: the service takes it up by itself, and no request fails.

    The bundle is verified first, and its new clients are registered. Responses under way end on the bundle that began
    them; each receipt names its own.
    """
    opened = open_bundle(bundle)
    _require_sound(opened)
    publication = publish(Ledger(ledger), opened, ACTOR)
    manifest = opened.manifest
    if as_json:
        print_json(None if publication is None else asdict(publication))
    elif publication is None:
        say(f"round {manifest.round} of {manifest.consortium} is published from {bundle} already")
    else:
        say(f"published: {_words(publication)} of {manifest.consortium}, from {publication.bundle}", soft_wrap=True)
        back = f"`protoken consortium rollback {manifest.consortium}` goes back"
        say(f"{_NEXT_WORDS}; {back}", soft_wrap=True)


def rollback(
    consortium: _Consortium, ledger: LedgerUrl = AS_SET, _config: Config = None, as_json: Json = False
) -> None:
    """Take the bundle that was published last back, so that the one before is served again, without a restart."""
    withdrawn, standing = roll_back(Ledger(ledger), consortium, ACTOR)
    if as_json:
        print_json(asdict(standing))
        return
    say(f"taken back: {_words(withdrawn)}; published is {_words(standing)}, from {standing.bundle}", soft_wrap=True)
    say(_NEXT_WORDS, soft_wrap=True)


def rounds(consortium: _Consortium, ledger: LedgerUrl = AS_SET, _config: Config = None, as_json: Json = False) -> None:
    """List every bundle of a consortium that was put in service: which receipts name which, and where it lies."""
    with Ledger(ledger).database.read() as connection:
        told = publications.history(connection, consortium)
    if not told:
        raise PublicationError(f"nothing was published for consortium {consortium!r} in this ledger")
    if as_json:
        print_json([asdict(each) for each in told])
        return
    served = [each for each in told if not each.is_withdrawn][-1]
    rows = [
        (
            str(each.round),
            each.model_sha256[:12],
            date(each.at_us),
            each.actor,
            "served" if each == served else "taken back" if each.is_withdrawn else "",
            each.bundle,
        )
        for each in told
    ]
    print_table(f"rounds of {consortium}", ("round", "global", "published", "by", "", "bundle"), rows)


def _require_sound(bundle: Bundle) -> None:
    """Refuse a bundle that does not add up: what is paid by it could not be explained.

    Raises:
        BundleError: naming what disagrees.
    """
    problems = verify_bundle(bundle).problems
    if problems:
        raise BundleError(f"{bundle.path}: {'; '.join(problems)}; nothing was published")


def _words(publication: Publication) -> str:
    return f"round {publication.round} ({publication.model_sha256[:8]})"
