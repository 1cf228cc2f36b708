"""Files for their owner alone: written whole, tightened where they are laxer, and nothing else is touched."""

import os
import stat

import pytest

from rewards import Ledger, LedgerError, private_files


def mode(path):
    """The permissions of a file or folder."""
    return stat.S_IMODE(path.stat().st_mode)


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
