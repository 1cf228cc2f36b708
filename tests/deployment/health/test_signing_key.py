"""The signing key of a ledger is made once, known before it is there, and is no other ledger's."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from deployment.cli import main
from deployment.errors import StartError
from deployment.health.signing_key import (
    find_signing_key,
    make_signing_key,
    require_no_lost_ledger,
    signing_key,
)
from rewards.errors import SignatureError
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import log_origin, seal, verify_keys
from rewards.signing.keys import SigningKey
from rewards.store import schema
from rewards.store.database import connect_unchanged
from tests.rewards.conftest import new_database


def test_signing_key_is_made_once_for_its_owner_alone(ledger: Ledger, tmp_path: Path) -> None:
    """The first start makes the key, later ones find it; the log keeps the name of its first seal."""
    path = tmp_path / "deep" / "signing.key"
    first, again = signing_key(path, ledger, "demo/ledger"), signing_key(path, ledger, "another")

    assert (first.public, 0o600) == (again.public, path.stat().st_mode & 0o777)
    assert "demo/ledger" == log_origin(ledger, first)
    seal(ledger, first, "demo/ledger")
    assert "demo/ledger" == log_origin(ledger, SigningKey.generate("new"))


def test_folder_of_the_key_that_cannot_be_made_is_named(ledger: Ledger, tmp_path: Path) -> None:
    """A file where the folder should be is named."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="file"):
        signing_key(tmp_path / "file" / "signing.key", ledger, "demo")


def keys_of(ledger: Ledger) -> list[str]:
    """The ids of the keys that the books name."""
    with ledger.database.read() as connection:
        return [key.key_id for key in verify_keys(connection)]


def test_a_missing_signing_key_is_refused_once_there_was_one(ledger: Ledger, tmp_path: Path) -> None:
    """No new identity is made where the books name one: the error says whose is missing, and what to do."""
    path = tmp_path / "signing.key"
    key = signing_key(path, ledger, "demo/ledger")
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(StartError, match=r"signing\.key is missing.*bring the file back.*create --signing") as caught:
        signing_key(path, ledger, "demo/ledger")

    assert str(key.public) in str(caught.value)
    assert not path.exists()
    assert [key.public.key_id] == keys_of(ledger)
    (tmp_path / "elsewhere").rename(path)
    assert key.public == signing_key(path, ledger, "demo/ledger").public


def test_another_ledger_s_signing_key_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    """A file that holds a key which the books do not name is not taken up: it would be a second identity."""
    first = signing_key(tmp_path / "signing.key", ledger, "demo/ledger")
    SigningKey.generate("demo/ledger").save(tmp_path / "other.key")
    with pytest.raises(SignatureError, match="none of this ledger's, which is signed by demo/ledger"):
        signing_key(tmp_path / "other.key", ledger, "demo/ledger")

    assert [first.public.key_id] == keys_of(ledger)
    assert first.public == signing_key(tmp_path / "signing.key", ledger).public


def test_a_key_that_an_empty_ledger_does_not_know_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    """The file is what was left of another ledger, whose history it would begin again.

    New books get a key of their own where somebody says so; the old one is kept.
    """
    left = SigningKey.generate("demo/ledger")
    left.save(tmp_path / "signing.key")
    with ledger.database.read() as connection, pytest.raises(SignatureError, match="no key has signed yet"):
        find_signing_key(tmp_path / "signing.key", connection)
    with pytest.raises(
        SignatureError, match=r"own ledger is lost, bring that back.*restore.*create --signing --rotate"
    ):
        signing_key(tmp_path / "signing.key", ledger, "demo/ledger")

    assert [] == keys_of(ledger)
    made = make_signing_key(ledger.database.url, None, tmp_path / "signing.key", rotate=True)
    assert made == signing_key(tmp_path / "signing.key", ledger).public.encode()
    assert left.public == SigningKey.load(tmp_path / f"signing.key.{left.public.key_id}").public


@pytest.mark.parametrize("name", ["demo/ledger", None])
def test_who_was_killed_before_the_key_was_in_its_place_finds_it(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    """The ledger knows it by then: another would be a second identity, and without it there would be none."""
    path = tmp_path / "signing.key"
    drafts = []

    def die(draft: Path, _file: Path, **_options: bool) -> None:
        drafts.append(draft)
        draft.rename(tmp_path / "elsewhere")  # as nobody tidies up who was killed
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("deployment.health.signing_key._put", die)
        with pytest.raises(Killed):
            signing_key(path, ledger, "demo/ledger")
    (tmp_path / "elsewhere").rename(drafts[0])
    with ledger.database.read() as connection:
        found = find_signing_key(path, connection)

    assert (False, found.public) == (path.exists(), signing_key(path, ledger, name).public)
    assert ([found.public.key_id], ["signing.key"]) == (keys_of(ledger), [each.name for each in tmp_path.glob("*key*")])


class Killed(BaseException):
    """As nothing catches it."""


def test_of_two_that_make_the_first_key_one_does(ledger: Ledger, tmp_path: Path) -> None:
    """Two services that start at once on one ledger: the other is refused, and finds the key when it starts again."""
    paths = [tmp_path / name for name in ("one.key", "two.key")]
    begin = Barrier(2)

    def start(path: Path) -> bool:
        begin.wait()
        try:
            signing_key(path, ledger, "demo/ledger")
        except (SignatureError, StartError):
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        started = list(pool.map(start, paths))

    assert [False, True] == sorted(started)
    assert [path.exists() for path in paths] == started
    assert 1 == len(keys_of(ledger))


def test_no_books_are_begun_where_only_the_key_is_left(url: str, ledger: Ledger, tmp_path: Path) -> None:
    """A ledger that is gone is not made anew under its own name: that would look like history that was rewritten."""
    key = tmp_path / "signing.key"
    require_no_lost_ledger(f"sqlite:///{tmp_path}/none.db", key)
    signing_key(key, ledger, "demo/ledger")
    require_no_lost_ledger(url, key)
    ledger.close()
    for path in tmp_path.glob("ledger.db*"):
        path.rename(tmp_path / f"away-{path.name}")

    with pytest.raises(StartError, match=r"no ledger in .*ledger\.db, and .*signing\.key is the .* of one that was"):
        require_no_lost_ledger(url, key)


def test_no_books_are_begun_in_a_database_that_was_emptied(
    postgresql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a file is gone, and whoever would begin them: a start, or `keys create`."""
    url, key = new_database(postgresql), tmp_path / "signing.key"
    require_no_lost_ledger(url, key)
    SigningKey.generate("demo/ledger").save(key)
    with pytest.raises(StartError, match=r"no ledger in postgresql://.*signing\.key is the .* of one that was"):
        require_no_lost_ledger(url, key)
    monkeypatch.setenv("PROTOKEN_SIGNING_KEY", str(key))
    for bearer in (["--role", "operator"], ["--signing"]):
        with pytest.raises(SystemExit) as ended:
            main(["keys", "create", *bearer, "--ledger", url])
        assert 1 == ended.value.code
    with connect_unchanged(url) as connection:
        assert schema.is_empty(connection, url)


def test_without_a_name_no_key_is_made(ledger: Ledger, tmp_path: Path) -> None:
    """What only signs, as sealing by hand, makes no key: it says what does."""
    with pytest.raises(StartError, match=r"no signing key in .*signing\.key yet; `protoken keys create --signing"):
        signing_key(tmp_path / "signing.key", ledger)
    assert not (tmp_path / "signing.key").exists()


def test_a_key_is_on_disk_before_the_ledger_names_it(
    url: str, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the disk refuses to keep it, the books never hear of the key, and no file is left that looks like one."""

    def refuse(_handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("rewards.files.private_files.os.fsync", refuse)
    with pytest.raises(SignatureError, match=r"signing\.key.*: Input/output error"):
        signing_key(tmp_path / "signing.key", ledger, "demo/ledger")
    with pytest.raises(SignatureError, match="Input/output error"):
        make_signing_key(url, "demo/ledger", tmp_path / "made.key", rotate=False)

    assert [] == keys_of(ledger)
    assert [] == [path.name for path in tmp_path.iterdir() if "key" in path.name]
