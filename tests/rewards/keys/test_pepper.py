"""The pepper is made once, kept to its owner, and never silently made anew."""

import stat
from pathlib import Path

import pytest

from rewards.errors import KeyRingError, LedgerError
from rewards.keys.pepper import load_or_make
from rewards.keys.ring import KeyRing
from rewards.store.database import now_us
from tests.rewards.processes import PROCESSES


def test_the_pepper_is_made_on_first_use_and_stays(sqlite_url, tmp_path):
    """32 bytes in a file that its owner alone may read; asked again, the same; nothing else is left in the folder."""
    path = tmp_path / "deep" / "pepper"
    made = load_or_make(path, sqlite_url)

    assert made == load_or_make(path, sqlite_url) == path.read_bytes()
    assert (32, 0o600) == (len(made), stat.S_IMODE(path.stat().st_mode))
    assert [path] == list(path.parent.iterdir())


def test_peppers_differ(sqlite_url, tmp_path):
    """Every pepper is random."""
    assert load_or_make(tmp_path / "a", sqlite_url) != load_or_make(tmp_path / "b", sqlite_url)


def test_racing_makers_agree(sqlite_url, tmp_path):
    """Processes that make it at once all get the one that lies there in the end."""
    path = tmp_path / "pepper"
    with PROCESSES.Pool(4) as pool:
        found = pool.starmap(load_or_make, [(path, sqlite_url)] * 12)

    assert {path.read_bytes()} == set(found)


def test_a_missing_pepper_is_an_error_while_there_are_keys(url, tmp_path):
    """All keys would be dead: the file is named, and none is made."""
    path = tmp_path / "pepper"
    keys = KeyRing(url, load_or_make(path, url))
    keys.create("operator", "x", actor="tester")
    path.unlink()

    with pytest.raises(KeyRingError, match=f"pepper {path} is missing"):
        load_or_make(path, url)
    assert not path.exists()
    keys.close()


def test_where_no_key_is_valid_any_more_a_lost_pepper_is_replaced(url, tmp_path):
    """Once the keys of a lost pepper are revoked there is nothing to lose."""
    path = tmp_path / "pepper"
    keys = KeyRing(url, load_or_make(path, url))
    keys.create("operator", "x", actor="tester", expires_at_us=now_us() + 10**12)
    lost = path.read_bytes()
    path.unlink()
    keys.revoke(keys.list()[0].key_id, actor="tester")

    assert lost != load_or_make(path, url)
    keys.close()


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_a_file_that_is_no_pepper_is_named(sqlite_url, tmp_path, content):
    """A file of another length is not taken, and not touched."""
    path = tmp_path / "pepper"
    path.write_bytes(content)

    with pytest.raises(KeyRingError, match=f"pepper {path} holds {len(content)} bytes"):
        load_or_make(path, sqlite_url)
    assert content == path.read_bytes()


def test_a_folder_that_cannot_be_written_is_named(sqlite_url, tmp_path):
    """What the system says is told with the file's name."""
    (tmp_path / "file").touch()
    with pytest.raises(KeyRingError, match=r"pepper .*file/pepper: Not a directory"):
        load_or_make(tmp_path / "file" / "pepper", sqlite_url)


def test_without_file_the_ledger_is_asked(tmp_path):
    """Where neither file nor ledger can be read, that is not taken for "no keys"."""
    with pytest.raises(LedgerError):
        load_or_make(Path(tmp_path / "pepper"), f"sqlite:///{tmp_path}/none.db")
    assert [] == list(tmp_path.iterdir())
