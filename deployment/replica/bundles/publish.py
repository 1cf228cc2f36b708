"""A bundle put in service, or taken back: its clients registered and the fact written, in one transaction.

Replicas read it from the ledger (`publication_index`). Knows no replica, and loads no model.
"""

from collections.abc import Mapping

from attribution.bundle.bundle import Bundle, manifest_sha256
from rewards.errors import PublicationError
from rewards.ledger.ledger import Ledger
from rewards.store import clients, publications
from rewards.store.database import Connection
from rewards.store.publications import Publication

SERVICE = "service"
"""Who publishes what a service is set to serve; whoever types a command is named otherwise."""


def publish(ledger: Ledger, bundle: Bundle, actor: str) -> Publication | None:
    """Let a bundle answer for its consortium from now on, and its clients be credited; None where it does already.

    Raises:
        PublicationError: the ledger knows no such consortium, or none of the bundle's clients in it; or another bundle
            of the same global model was published.
        CreditError: an id by which another consortium of the ledger calls somebody else.
    """
    manifest, folder = bundle.manifest, str(bundle.path.absolute())
    members = {client.id: client.name for client in manifest.clients}
    with ledger.database.write() as connection:
        known = clients.registrations(connection)
        require_same_consortium(bundle, known)
        before = publications.standing(connection, manifest.consortium)
        if before and (before[-1].model_sha256, before[-1].bundle) == (manifest.global_.sha256, folder):
            return None
        clients.register(connection, manifest.consortium, members)
        return _record(connection, bundle, actor)


def require_same_consortium(bundle: Bundle, known: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse a bundle of a consortium that a ledger does not know, or knows as another.

    Args:
        bundle: to be put in service.
        known: consortium -> client -> name, as the ledger has them registered.

    Raises:
        PublicationError: names both.
    """
    consortium, members = bundle.manifest.consortium, {client.id for client in bundle.manifest.clients}
    if consortium not in known:
        raise PublicationError(
            f"the ledger knows no consortium {consortium!r}, only {', '.join(sorted(known)) or 'none'}: "
            "a service serves it first, by its setting `bundle`"
        )
    if not members & known[consortium].keys():
        raise PublicationError(
            f"none of {', '.join(sorted(members))} is a client of consortium {consortium!r} in this "
            f"ledger, where {', '.join(sorted(known[consortium]))} are: this is another consortium of "
            "the same name"
        )


def publish_setting(ledger: Ledger, bundle: Bundle) -> Publication:
    """Register the clients of the bundle that a service is set to serve; which publication serves then.

    A bundle that was never published is, and so serves; one that was published before does not come back by a restart.

    Raises:
        PublicationError: another bundle of the same global model was published before.
        CreditError: an id that a client may not have.
    """
    manifest = bundle.manifest
    with ledger.database.write() as connection:
        clients.register(connection, manifest.consortium, {client.id: client.name for client in manifest.clients})
        before = publications.history(connection, manifest.consortium)
        known = {each.model_sha256: each.manifest_sha256 for each in before}
        if known.get(manifest.global_.sha256) != manifest_sha256(bundle.path):
            return _record(connection, bundle, SERVICE)
        return publications.standing(connection, manifest.consortium)[-1]


def roll_back(ledger: Ledger, consortium: str, actor: str) -> tuple[Publication, Publication]:
    """Take the last publication of a consortium back: it, and the one before, which serves now.

    Raises:
        PublicationError: there is none before it.
    """
    with ledger.database.write() as connection:
        return publications.withdraw(connection, consortium, actor)


def _record(connection: Connection, bundle: Bundle, actor: str) -> Publication:
    manifest = bundle.manifest
    publications.publish(
        connection,
        manifest.consortium,
        bundle=str(bundle.path.absolute()),
        model_sha256=manifest.global_.sha256,
        manifest_sha256=manifest_sha256(bundle.path),
        round_number=manifest.round,
        actor=actor,
    )
    return publications.standing(connection, manifest.consortium)[-1]
