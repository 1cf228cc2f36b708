"""Files for their owner alone: written whole, tightened where they are laxer, and nothing else is touched."""

import os
import sqlite3
import stat
from contextlib import closing

import pytest

from rewards.errors import LedgerError, RewardsError
from rewards.files import private_files
from rewards.keys import pepper
from rewards.ledger.ledger import Ledger
from rewards.signing.keys import SigningKey


def mode(path):
    """The permissions of a file or folder."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    "use",
    [
        lambda path: Ledger.prepare(f"sqlite:///{path}"),
        lambda path: Ledger.migrate(f"sqlite:///{path}"),
        lambda path: pepper.load_or_make(path, f"sqlite:///{path}.none"),
        SigningKey.load,
    ],
)
def test_what_is_not_ours_keeps_its_permissions(tmp_path, caplog, use):
    """A file that a slip named as ledger, pepper or signing key is refused, and can be read by others as before."""
    database, text = tmp_path / "holidays.db", tmp_path / "hosts"
    with closing(sqlite3.connect(database)) as other:
        other.execute("CREATE TABLE holidays (day TEXT)")
    text.write_text("127.0.0.1 localhost")
    for path in (database, text):
        path.chmod(0o644)
        with pytest.raises(RewardsError):
            use(path)

    assert [0o644, 0o644] == [mode(database), mode(text)]
    assert "" == caplog.text


def test_a_folder_is_never_tightened(tmp_path):
    """A folder that is named where a file belongs keeps its permissions, and so does what is no file."""
    folder, pipe = tmp_path / "folder", tmp_path / "pipe"
    folder.mkdir(mode=0o755)
    os.mkfifo(pipe, 0o644)
    for path in (folder, pipe):
        before = mode(path)
        private_files.tighten(path)

        assert before == mode(path)
    with pytest.raises(LedgerError, match="folder"):
        Ledger.prepare(f"sqlite:///{folder}")
    assert 0o755 == mode(folder)


def test_a_file_is_written_whole_and_never_over_another(tmp_path):
    """What is written is there with its owner's permissions, nothing lies beside it, and a second write is refused."""
    path = tmp_path / "secret"
    private_files.write_new(path, b"first")
    with pytest.raises(FileExistsError):
        private_files.write_new(path, b"second")

    assert (b"first", 0o600) == (path.read_bytes(), mode(path))
    assert [path] == list(tmp_path.iterdir())


def test_what_the_disk_refuses_is_not_there(tmp_path, monkeypatch):
    """Where a file cannot be made durable it does not get its name, and no half of it is left."""

    def refuse(_handle):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        private_files.write_new(tmp_path / "secret", b"content")

    assert [] == list(tmp_path.iterdir())
