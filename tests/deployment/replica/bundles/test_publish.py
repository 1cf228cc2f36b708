"""A bundle is put in service, and taken back, in the ledger: what is refused, and what serves after a start."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from attribution.bundle.bundle import Bundle, open_bundle
from deployment.replica.bundles.publication_index import PublishedBundles
from deployment.replica.bundles.publish import publish, publish_setting, roll_back
from rewards.audit.replay import audit
from rewards.errors import CreditError, PublicationError
from rewards.ledger.ledger import Ledger
from rewards.store import publications
from tests.attribution.consortia import base_model, lora_update, write_consortium


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where bundles are made."""
    return tmp_path_factory.mktemp("bundles")


def bundle_of(folder: Path, place: str, clients: tuple[str, ...], number: int = 1, name: str = "test") -> Bundle:
    """A round of a consortium with these clients, made once."""
    if not (folder / place).exists():
        base = base_model("llama")
        updates = {client: lora_update(base, 10 * number + n, first_block=3) for n, client in enumerate(clients)}
        write_consortium(folder / place, base, updates, name=name, number=number)
    return open_bundle(folder / place / "bundle")


@pytest.fixture
def first(folder: Path) -> Bundle:
    """The first round."""
    return bundle_of(folder, "first", ("clinic", "bank"))


@pytest.fixture
def second(folder: Path) -> Bundle:
    """The second round, which a school has joined."""
    return bundle_of(folder, "second", ("clinic", "bank", "school"), 2)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    Ledger.prepare(url)
    ledger = Ledger(url)
    yield ledger
    ledger.close()


def serving(ledger: Ledger) -> list[int]:
    """The rounds that were published and not taken back, the newest first."""
    return [each.round for each in PublishedBundles(ledger.database, "test", [Path("nowhere")]).standing()]


def test_what_a_service_is_set_to_serve_is_published_once(ledger: Ledger, first: Bundle, second: Bundle) -> None:
    """A bundle that is new serves; after a publish, a start with the old setting does not bring the old round back."""
    begun = publish_setting(ledger, first)
    again = publish_setting(ledger, first)
    publish(ledger, second, "operator")
    restarted = publish_setting(ledger, first)
    third = publish_setting(ledger, second)

    assert (1, begun, 2, 2) == (begun.round, again, restarted.round, third.round)
    assert [2, 1] == serving(ledger)
    assert ["service", "operator"] == [each.actor for each in _history(ledger)]


def test_a_setting_that_names_a_new_bundle_serves_it_from_the_next_start(
    ledger: Ledger, first: Bundle, second: Bundle
) -> None:
    """As it did before there was a publish."""
    publish_setting(ledger, first)

    assert 2 == publish_setting(ledger, second).round
    assert [2, 1] == serving(ledger)


def test_a_publish_registers_who_joined(ledger: Ledger, first: Bundle, second: Bundle) -> None:
    """Whoever is new in the round can be credited; and the audit finds the books in order."""
    publish_setting(ledger, first)
    publication = publish(ledger, second, "operator")

    assert publication is not None
    assert (str(second.path), second.manifest.global_.sha256) == (publication.bundle, publication.model_sha256)
    assert {"clinic": "Clinic", "bank": "Bank", "school": "School"} == ledger.clients()["test"]
    assert audit(ledger.database.url).difference is None


def test_the_same_bundle_is_published_once(ledger: Ledger, first: Bundle, second: Bundle) -> None:
    """Again says so; an earlier one again is a new publication."""
    publish_setting(ledger, first)

    assert publish(ledger, first, "operator") is None
    publish(ledger, second, "operator")
    publish(ledger, first, "operator")
    assert [1, 2, 1] == serving(ledger)


def test_a_rollback_goes_back_round_by_round(ledger: Ledger, first: Bundle, second: Bundle, folder: Path) -> None:
    """A second one does not bring the bad round back, but the one before; the first of all stays."""
    publish_setting(ledger, first)
    publish(ledger, second, "operator")
    publish(ledger, bundle_of(folder, "third", ("clinic", "bank"), 3), "operator")
    backs = [roll_back(ledger, "test", "operator") for _ in range(2)]

    assert [(3, 2), (2, 1)] == [(withdrawn.round, standing.round) for withdrawn, standing in backs]
    assert [(1, False), (2, True), (3, True)] == [(each.round, each.is_withdrawn) for each in _history(ledger)]
    with pytest.raises(PublicationError, match=r"only .*first.* is published .* nothing to go back to"):
        roll_back(ledger, "test", "operator")
    with pytest.raises(PublicationError, match="nothing is published for consortium 'nobody'"):
        roll_back(ledger, "nobody", "operator")


def test_a_bundle_of_another_consortium_is_refused(ledger: Ledger, first: Bundle, folder: Path) -> None:
    """By a name that the ledger does not know, or by clients of which it knows none; nothing is written."""
    stranger = bundle_of(folder, "stranger", ("clinic",), name="tset")
    namesake = bundle_of(folder, "namesake", ("port", "mill"))
    with pytest.raises(PublicationError, match="knows no consortium 'tset', only none"):
        publish(ledger, stranger, "operator")
    publish_setting(ledger, first)
    with pytest.raises(PublicationError, match="knows no consortium 'tset', only test"):
        publish(ledger, stranger, "operator")
    with pytest.raises(PublicationError, match=r"none of mill, port is a client .* where bank, clinic are"):
        publish(ledger, namesake, "operator")

    assert ([1], {"test"}) == (serving(ledger), ledger.clients().keys())


def test_other_updates_under_the_same_global_model_are_refused(ledger: Ledger, first: Bundle, tmp_path: Path) -> None:
    """A receipt names the global model alone, so the same one cannot credit others from some moment on."""
    publish_setting(ledger, first)
    copy, other = tmp_path / "copy", tmp_path / "other"
    for folder in (copy, other):
        shutil.copytree(first.path, folder)
    manifest = other / "consortium.json"
    manifest.write_text(manifest.read_text().replace('"clinic"', '"doctor"'))

    for put in (
        partial(publish, ledger, open_bundle(other), "operator"),
        partial(publish_setting, ledger, open_bundle(other)),
    ):
        with pytest.raises(PublicationError, match=r"other has the global model of .*first.* not its manifest"):
            put()
    assert publish(ledger, open_bundle(copy), "operator") is not None
    assert {"clinic", "bank"} == ledger.clients()["test"].keys()


def test_a_client_that_is_somebody_else_elsewhere_is_refused(ledger: Ledger, first: Bundle, second: Bundle) -> None:
    """Two organisations would share one account; nothing is published."""
    publish_setting(ledger, first)
    ledger.register("other", {"school": "A school of fish"})

    with pytest.raises(CreditError, match="school"):
        publish(ledger, second, "operator")
    assert [1] == serving(ledger)


def test_a_bundle_is_found_by_its_hash(ledger: Ledger, first: Bundle, second: Bundle) -> None:
    """Where the setting has it, else where it was published last, also once it was taken back."""
    publish_setting(ledger, first)
    publish(ledger, second, "operator")
    roll_back(ledger, "test", "operator")
    published = PublishedBundles(ledger.database, "other", [second.path])

    assert [second.path] == published.folders(second.manifest.global_.sha256)
    assert [first.path] == published.folders(first.manifest.global_.sha256)
    assert [] == published.folders("0" * 64)


def _history(ledger: Ledger) -> list[publications.Publication]:
    with ledger.database.read() as connection:
        return publications.history(connection, "test")
