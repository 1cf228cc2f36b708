"""A ledger whose file is taken away, replaced or set back while it is open: nothing is booked into it, nor lost."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from rewards.errors import LedgerError, LedgerLostError
from rewards.ledger.ledger import Ledger
from rewards.store.continuity import Continuity
from tests.rewards.conftest import new_database
from tests.rewards.receipts import MEMBERS, make_receipt


@pytest.fixture
def path(sqlite_url: str) -> Path:
    """The file of the ledger."""
    return Path(sqlite_url.removeprefix("sqlite:///"))


@pytest.fixture
def book(sqlite_url: str):
    """A ledger that is open and has one receipt."""
    with closing(Ledger(sqlite_url)) as book:
        book.append(make_receipt("first"))
        yield book


def another_ledger(folder: Path) -> Path:
    """Another ledger with the same clients."""
    url = f"sqlite:///{folder / 'other.db'}"
    Ledger.prepare(url)
    with closing(Ledger(url)) as other:
        other.register("demo", MEMBERS)
    return folder / "other.db"


def refusal(act) -> str:
    """The code with which the ledger refuses."""
    with pytest.raises(LedgerLostError) as raised:
        act()
    return raised.value.code


class TestFile:
    """The file that bears the ledger's name is the one that was opened."""

    @pytest.mark.parametrize("away", [lambda path: path.rename(path.with_name("moved.db")), Path.unlink])
    def test_nothing_is_read_or_booked_once_it_is_gone(self, book, path, away):
        """Reading and booking are refused by name, and no empty file takes its place."""
        away(path)

        assert "ledger_missing" == refusal(lambda: book.append(make_receipt("second")))
        assert "ledger_missing" == refusal(book.clients)
        assert not path.exists()

    def test_folder_that_is_gone(self, book, path):
        """The whole folder moved away is the same."""
        path.parent.rename(path.parent.with_name("elsewhere"))

        assert "ledger_missing" == refusal(lambda: book.append(make_receipt("second")))

    def test_once_it_is_back_booking_goes_on(self, book, path):
        """The same file under its name again is the same ledger: what was refused meanwhile can be booked."""
        moved = path.rename(path.with_name("moved.db"))
        refusal(lambda: book.append(make_receipt("second")))
        moved.rename(path)
        book.append(make_receipt("second"))

        assert 2 == book.last_sequence()

    def test_another_file_is_refused(self, book, path, tmp_path):
        """Nothing of this ledger goes into another one that took its place, nor is anything read of it."""
        other = another_ledger(tmp_path)
        path.rename(path.with_name("moved.db"))
        other.rename(path)

        assert "ledger_replaced" == refusal(lambda: book.append(make_receipt("second")))
        assert "ledger_replaced" == refusal(book.clients)

    def test_what_was_committed_into_an_unlinked_file_is_not_called_booked(self, book, path):
        """A file that is taken away in the middle of a transaction: its end is an error, so it is booked again."""

        def commit_after_the_loss() -> None:
            with book.database.write() as connection:
                assert connection.in_transaction()
                path.unlink()

        assert "ledger_missing" == refusal(commit_after_the_loss)

    @pytest.mark.parametrize("ending", ["-wal", "-shm"])
    def test_write_ahead_log_that_is_gone(self, book, path, ending):
        """Booking is refused, and what was booked before is in the file by then: no receipt is lost by it."""
        Path(f"{path}{ending}").unlink()

        assert "ledger_log_missing" == refusal(lambda: book.append(make_receipt("second")))
        copy = shutil.copy(path, path.with_name("copy.db"))
        with closing(sqlite3.connect(copy)) as rows:
            assert [("first",)] == rows.execute("SELECT response_id FROM receipts").fetchall()

    @pytest.mark.parametrize("name", ["ledger.db-wal", "ledger.db"])
    def test_a_ledger_behind_a_link_is_looked_at_where_it_lies(self, tmp_path, prepared_file, name):
        """SQLite keeps the log beside the file that a link leads to; that it goes is noticed there, and it is kept."""
        (tmp_path / "disk").mkdir()
        real = Path(shutil.copy(prepared_file, tmp_path / "disk" / "ledger.db"))
        (tmp_path / "link.db").symlink_to(real)
        url = f"sqlite:///{tmp_path}/link.db"
        with closing(Ledger(url)) as book:
            book.append(make_receipt("first"))
            real.with_name(name).rename(tmp_path / "taken")
            refusal(lambda: book.append(make_receipt("second")))
            if name == "ledger.db":
                with pytest.raises(LedgerError, match=r"ledger\.db-wal, which holds its latest receipts"):
                    Ledger.prepare(url)

    @pytest.mark.parametrize("is_replaced", [False, True])
    def test_what_is_moved_away_from_its_log_is_whole(self, book, path, tmp_path, is_replaced):
        """Who moves the file and leaves the log has every receipt that was booked, whatever becomes of the log."""
        moved = path.rename(path.with_name("moved.db"))
        if is_replaced:
            another_ledger(tmp_path).rename(path)
        refusal(lambda: book.append(make_receipt("second")))
        copy = shutil.copy(moved, path.with_name("copy.db"))
        with closing(sqlite3.connect(copy)) as rows:
            assert [("first",)] == rows.execute("SELECT response_id FROM receipts").fetchall()

    @pytest.mark.parametrize("use", [Ledger.prepare, Ledger.migrate, Ledger])
    @pytest.mark.parametrize("is_empty", [False, True])
    def test_a_log_without_its_ledger_is_not_written_over(self, book, path, use, is_empty):
        """Where a killed service left its log, and the file was moved or cut, nobody makes a ledger that deletes it."""
        killed = path.with_name("killed.db")
        log = Path(shutil.copy(f"{path}-wal", f"{killed}-wal"))
        if is_empty:
            killed.touch()
        with pytest.raises(LedgerError, match=r"killed\.db-wal, which holds its latest receipts"):
            use(f"sqlite:///{killed}")
        killed.unlink(missing_ok=True)
        shutil.copy(path, killed)
        with closing(sqlite3.connect(killed)) as rows:
            assert [("first",)] == rows.execute("SELECT response_id FROM receipts").fetchall()

        assert not log.exists()  # it is in the file now

    def test_a_write_ahead_log_that_lost_its_name_is_written_at_the_end(self, book, path, sqlite_url):
        """Whoever stops in order and starts again finds every receipt."""
        Path(f"{path}-wal").unlink()
        book.close()
        with closing(Ledger(sqlite_url)) as again:
            assert 1 == again.last_sequence()

    def test_name_with_characters_of_a_url(self, tmp_path, prepared_file):
        """A file's name may hold what means something in a URL."""
        folder = tmp_path / "50% a#b c"
        folder.mkdir()
        shutil.copy(prepared_file, folder / "ledger.db")
        with closing(Ledger(f"sqlite:///{folder}/ledger.db")) as book:
            book.append(make_receipt("first"))

        assert ["ledger.db"] == [file.name for file in folder.iterdir()]


class TestRows:
    """The rows are those of the ledger that was opened, whatever bears its name."""

    def test_another_ledger_restored_over_the_file_is_refused(self, book, path, tmp_path):
        """The same file with the content of another ledger: nothing is booked into that."""
        with closing(sqlite3.connect(another_ledger(tmp_path))) as source, closing(sqlite3.connect(path)) as target:
            source.backup(target)

        assert "ledger_replaced" == refusal(lambda: book.append(make_receipt("second")))
        assert "ledger_replaced" == refusal(Continuity(book.database).check)

    def test_ledger_that_was_set_back_is_noticed(self, book, path, tmp_path):
        """An older copy of itself restored over it lacks receipts that were there."""
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(tmp_path / "backup.db")) as target:
            source.backup(target)
        continuity = Continuity(book.database)
        book.append(make_receipt("second"))
        continuity.check()
        with closing(sqlite3.connect(tmp_path / "backup.db")) as source, closing(sqlite3.connect(path)) as target:
            source.backup(target)

        assert "ledger_replaced" == refusal(continuity.check)
        book.append(make_receipt("third"))  # which takes the lost one's number
        assert "ledger_replaced" == refusal(continuity.check)

    def test_growth_is_no_loss(self, book):
        """A ledger that is booked into stays the same."""
        continuity = Continuity(book.database)
        for number in range(3):
            book.append(make_receipt(f"more-{number}"))
            continuity.check()

        assert 4 == book.last_sequence()

    def test_ledger_without_a_client_gets_its_identity_with_the_first(self, tmp_path):
        """An empty ledger may be opened, and what it is shows once its first client is registered."""
        url = f"sqlite:///{tmp_path / 'new.db'}"
        Ledger.prepare(url)
        with closing(Ledger(url)) as book:
            book.register("demo", MEMBERS)
            book.append(make_receipt("first"))
            other = another_ledger(tmp_path)
            with closing(sqlite3.connect(other)) as source, closing(sqlite3.connect(tmp_path / "new.db")) as target:
                source.backup(target)

            assert "ledger_replaced" == refusal(lambda: book.append(make_receipt("second")))

    def test_file_that_is_no_database(self, sqlite_url, path):
        """A file that was overwritten with something else is damaged, which waiting does not mend."""
        path.write_bytes(b"x" * 8192)

        assert "ledger_damaged" == refusal(lambda: Ledger(sqlite_url))

    @pytest.mark.parametrize("left", [b"", b"x" * 8192])
    def test_nothing_is_booked_into_a_file_that_was_cut(self, book, path, left):
        """SQLite would write on beside what is left; once the file is back as it was, booking goes on by itself."""
        whole = path.read_bytes()
        path.write_bytes(left)

        assert "ledger_damaged" == refusal(lambda: book.append(make_receipt("second")))
        assert "ledger_damaged" == refusal(book.clients)
        path.write_bytes(whole)
        assert 1 == book.last_sequence()
        assert 2 == book.append(make_receipt("second")).sequence

    def test_a_file_that_was_overwritten_is_read_again_once_it_is_back(self, book, path):
        """No connection goes on saying that it is no database when it is one again."""
        whole = path.read_bytes()
        path.write_bytes(b"x" * len(whole))
        for _ in range(2):
            assert "ledger_damaged" == refusal(book.clients)
        path.write_bytes(whole)

        assert ["demo"] == list(book.clients())
        assert 2 == book.append(make_receipt("second")).sequence


class TestPostgresql:
    """A database has no file that could be looked at: it is known by its rows."""

    def test_database_that_was_dropped(self, postgresql, postgresql_url):
        """It is missing, and not away."""
        with closing(Ledger(postgresql_url)) as book:
            book.append(make_receipt("first"))
            name = make_url(postgresql_url).database
            with psycopg.connect(postgresql, autocommit=True) as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

            assert "ledger_missing" == refusal(lambda: book.append(make_receipt("second")))
            assert "ledger_missing" == refusal(Continuity(book.database).check)

    def test_another_ledger_under_its_name(self, postgresql, postgresql_url):
        """Nothing of this ledger is booked into another one that was restored under its name."""
        other = new_database(postgresql)
        Ledger.prepare(other)
        with closing(Ledger(other)) as book:
            book.register("demo", MEMBERS)
        name, other_name = (make_url(url).database for url in (postgresql_url, other))
        with closing(Ledger(postgresql_url)) as book:
            book.append(make_receipt("first"))
            with psycopg.connect(postgresql, autocommit=True) as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
                connection.execute(f"ALTER DATABASE {other_name} RENAME TO {name}")

            assert "ledger_replaced" == refusal(lambda: book.append(make_receipt("second")))

    def test_tables_that_were_dropped(self, postgresql_url):
        """A database without the ledger's tables is no ledger."""
        with closing(Ledger(postgresql_url)) as book:
            with psycopg.connect(postgresql_url, autocommit=True) as connection:
                connection.execute("DROP SCHEMA public CASCADE")

            assert "ledger_missing" == refusal(Continuity(book.database).check)
