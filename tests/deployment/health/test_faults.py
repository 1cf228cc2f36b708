"""What the service stands on is taken away: health, requests, receipts and seals say so, and go on once it is back."""

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from unittest.mock import AsyncMock

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from attribution.errors import BundleError
from deployment.app.http_app import build_app
from deployment.app.ingress import _require_known
from deployment.books.books import Books
from deployment.errors import PartLostError, SpoolError, UnavailableError
from deployment.health import watched_parts
from deployment.health.faults import Watch
from deployment.replica.booking.booking_queue import BookingQueue
from deployment.retention.replays import Replays
from deployment.spool.records import record_of
from deployment.spool.spool import Spool
from rewards.errors import LedgerError
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import Sealer, count_unsealed, register_signing_key
from rewards.signing.keys import SigningKey
from rewards.store.continuity import Continuity
from tests.deployment.gateway.engines import ScriptedEngine
from tests.deployment.metrics.scrapes import exporter
from tests.rewards.receipts import MEMBERS, make_receipt
from tests.waiting import PATIENCE_S, until

QUICK_S = 0.02
MANIFEST = {
    "schema_version": 1,
    "consortium": "demo",
    "base": {"reference": "base", "sha256": "0" * 64},
    "round": 1,
    "aggregation": "fedavg-exact",
    "global": {"path": "global", "sha256": "1" * 64, "residual_norm": 0},
    "clients": [
        {
            "id": "clinic",
            "name": "Clinic",
            "examples": 1,
            "weight": 1,
            "kind": "full",
            "path": "updates/clinic.safetensors",
            "sha256": "2" * 64,
            "last_round_path": "last/clinic.safetensors",
            "last_round_sha256": "3" * 64,
        }
    ],
}
ASK = {"model": "hospital-net", "prompt": "Hello", "max_tokens": 3}


def code_of(check: watched_parts.Check) -> str | None:
    """What is wrong with a part; None where nothing is."""
    try:
        check()
    except PartLostError as error:
        return error.code
    return None


def write_bundle(folder: Path) -> Path:
    """A bundle with files in every place that its manifest names."""
    for file in ("global/model.safetensors", "updates/clinic.safetensors", "last/clinic.safetensors"):
        (folder / file).parent.mkdir(parents=True)
        (folder / file).write_bytes(b"weights")
    (folder / "consortium.json").write_text(json.dumps(MANIFEST))
    return folder


@pytest.fixture
def demo(url: str) -> str:
    """The URL of a ledger in which the clients of the test receipts are registered."""
    with closing(Ledger(url)) as ledger:
        ledger.register("demo", MEMBERS)
    return url


def verify_nothing(_folder: Path) -> None:
    """As where no file was written since."""


class TestParts:
    """Each part knows whether it is what it was."""

    def test_folder(self, tmp_path: Path) -> None:
        """A folder that is gone, another one in its place, and the same one again."""
        folder = tmp_path / "texts"
        folder.mkdir()
        check = watched_parts.folder("texts", folder)
        found = [code_of(check)]
        folder.rename(tmp_path / "aside")
        found.append(code_of(check))
        folder.mkdir()
        found.append(code_of(check))
        folder.rmdir()
        (tmp_path / "aside").rename(folder)

        assert [None, "texts_missing", "texts_replaced", None] == [*found, code_of(check)]

    def test_secret(self, tmp_path: Path) -> None:
        """A pepper is its content: the same bytes in a new file are as good, others are not."""
        file = tmp_path / "pepper"
        file.write_bytes(b"a" * 32)
        check = watched_parts.secret("pepper", file)
        file.unlink()
        found = [code_of(check)]
        file.write_bytes(b"b" * 32)
        found.append(code_of(check))
        file.write_bytes(b"a" * 32)

        assert ["pepper_missing", "pepper_replaced", None] == [*found, code_of(check)]

    def test_signing_key(self, ledger: Ledger, tmp_path: Path) -> None:
        """A key that was rotated is as good; a file that is gone, holds none, or a stranger's key is not."""
        file = tmp_path / "signing.key"

        def place(key: SigningKey) -> None:
            file.unlink(missing_ok=True)
            key.save(file)

        mine, rotated = SigningKey.generate("mine/ledger"), SigningKey.generate("mine/ledger")
        register_signing_key(ledger, mine.public)
        place(mine)
        check = watched_parts.signing_key("signing_key", file, partial(_require_known, ledger))
        found = [code_of(check)]
        file.unlink()
        found.append(code_of(check))
        file.write_text("no key")
        found.append(code_of(check))
        place(SigningKey.generate("mine/ledger"))  # of the same name, and yet nobody whom the books know
        found.append(code_of(check))
        place(rotated)
        register_signing_key(ledger, rotated.public)
        found.append(code_of(check))

        expected = [None, "signing_key_missing", "signing_key_damaged", "signing_key_replaced", None]
        assert expected == found

    def test_bundle(self, tmp_path: Path) -> None:
        """A bundle may be copied back; without a file of it, or as another one, it is not what is served."""
        bundle = write_bundle(tmp_path / "bundle")
        check = watched_parts.bundle("bundle", bundle, verify_nothing)
        found = [code_of(check)]
        copy = shutil.copytree(bundle, tmp_path / "copy")
        (bundle / "global" / "model.safetensors").unlink()
        found.append(code_of(check))
        shutil.rmtree(bundle)
        found.append(code_of(check))
        copy.rename(bundle)
        found.append(code_of(check))
        manifest = bundle / "consortium.json"
        manifest.write_text(manifest.read_text() + " ")

        assert [None, "bundle_missing", "bundle_missing", None, "bundle_replaced"] == [*found, code_of(check)]

    @pytest.mark.parametrize(
        "file", ["global/model.safetensors", "updates/clinic.safetensors", "last/clinic.safetensors"]
    )
    def test_each_file_that_a_bundle_names(self, tmp_path: Path, file: str) -> None:
        """The served weights, a client's update and that of its last round: none may change or be lost."""
        bundle = write_bundle(tmp_path / "bundle")
        check = watched_parts.bundle("bundle", bundle, verify_nothing)
        found = [code_of(check)]
        (bundle / file).write_bytes(b"others")
        found.append(code_of(check))
        (bundle / file).unlink()

        assert [None, "bundle_replaced", "bundle_missing"] == [*found, code_of(check)]

    def test_a_file_that_is_written_into_is_read_again(self, tmp_path: Path) -> None:
        """As large as before, it may hold other weights: its hash decides, once for each time that it is written."""
        bundle = write_bundle(tmp_path / "bundle")
        weights = bundle / "global" / "model.safetensors"
        before, read = weights.read_bytes(), []

        def verify(folder: Path) -> None:
            read.append(folder)
            if weights.read_bytes() != before:
                raise BundleError(f"{weights}: has another hash")

        check = watched_parts.bundle("bundle", bundle, verify)
        found = [code_of(check)]
        for content in (before, before[:-1] + b"!", before):
            later = weights.stat().st_mtime_ns + 1_000_000
            weights.write_bytes(content)
            os.utime(weights, ns=(later, later))
            found += [code_of(check), code_of(check)]

        assert [None, None, None, "bundle_replaced", "bundle_replaced", None, None] == found
        assert [bundle] * 3 == read

    def test_round_that_is_copied_into_the_folder_of_a_bundle(self, tmp_path: Path) -> None:
        """What a bundle does not name may come, grow and go beside what it names."""
        bundle = write_bundle(tmp_path / "bundle")
        half = bundle / "round-2" / "global" / "model.safetensors"
        half.parent.mkdir(parents=True)
        half.write_bytes(b"hal")
        check = watched_parts.bundle("bundle", bundle, verify_nothing)
        half.write_bytes(b"half and half")
        found = [code_of(check)]
        shutil.rmtree(bundle / "round-2")

        assert [None, None] == [*found, code_of(check)]

    def test_parent_that_became_a_file(self, tmp_path: Path) -> None:
        """A path that leads through a file leads nowhere."""
        folder = tmp_path / "var" / "spool"
        folder.mkdir(parents=True)
        check = watched_parts.folder("spool", folder)
        shutil.rmtree(tmp_path / "var")
        (tmp_path / "var").write_text("")

        assert "spool_missing" == code_of(check)


class TestWatch:
    """Parts are looked at again and again, each for itself."""

    def test_fault_comes_and_goes_with_its_cause(self, tmp_path: Path) -> None:
        """What is wrong is told by part and code, without a path, until it is mended."""
        folder = tmp_path / "texts"
        folder.mkdir()
        with closing(Watch({"texts": watched_parts.folder("texts", folder)}, QUICK_S)) as watch:
            watch.require()
            folder.rename(tmp_path / "aside")
            until(lambda: bool(watch.faults))
            with pytest.raises(UnavailableError) as raised:
                watch.require()
            (tmp_path / "aside").rename(folder)
            until(lambda: not watch.faults)

        assert "texts_missing" == raised.value.code
        assert str(tmp_path) not in raised.value.message

    def test_part_that_hangs_holds_up_no_other(self, tmp_path: Path) -> None:
        """A disk that does not answer keeps its last state; the others are still looked at."""
        folder = tmp_path / "texts"
        folder.mkdir()
        checks = {"hanging": lambda: time.sleep(30), "texts": watched_parts.folder("texts", folder)}
        with closing(Watch(checks, QUICK_S)) as watch:
            folder.rmdir()
            until(lambda: [fault.part for fault in watch.faults] == ["texts"])

        assert "ok" == watch.parts["hanging"]

    def test_ledger_that_is_away_is_no_fault(self) -> None:
        """Receipts wait in the spool for it."""

        def away() -> None:
            looks.append(1)
            raise LedgerError("the database does not answer")

        looks: list[int] = []
        with closing(Watch({"ledger": away}, QUICK_S)) as watch:
            until(lambda: len(looks) > 2)

        assert () == watch.faults

    def test_looking_costs_little(self, ledger: Ledger, tmp_path: Path) -> None:
        """Rows and files are looked at in less than a millisecond or so, and the answer costs nothing."""
        continuity = Continuity(ledger.database)
        folder = watched_parts.folder("texts", tmp_path)
        continuity.check()
        seconds = []
        for _ in range(100):
            begun = time.perf_counter()
            continuity.check()
            folder()
            seconds.append(time.perf_counter() - begun)

        assert median(seconds) < 0.005  # where it takes a tenth; not the mean, as a busy machine lets some wait long


class TestService:
    """The HTTP surface over a ledger that is taken away."""

    @pytest.fixture
    def watched(self, engine: ScriptedEngine, ledger: Ledger, keys: KeyRing, replays: Replays) -> Iterator[FastAPI]:
        """The app, watching its ledger."""
        with closing(Watch({"ledger": Continuity(ledger.database).check}, QUICK_S)) as watch:
            yield build_app(engine, Books(ledger, keys), replays, default_max_tokens=64, watch=watch)

    def test_every_request_is_503_with_the_reason(
        self, watched: FastAPI, application_key: str, keys: KeyRing, url: str
    ) -> None:
        """Health names the part; applications, operators and the console are told the reason; then all is well."""
        path = Path(url.removeprefix("sqlite:///"))
        operator = keys.create("operator", "treasurer", actor="test")
        with TestClient(watched, raise_server_exceptions=False) as caller:
            mine = {"Authorization": f"Bearer {application_key}"}
            theirs = {"Authorization": f"Bearer {operator}"}
            caller.post("/console/sign-in", data={"key": operator})
            assert 200 == caller.post("/v1/completions", json=ASK, headers=mine).status_code
            path.rename(path.with_name("aside.db"))
            until(lambda: caller.get("/health").status_code == 503)
            health = caller.get("/health").json()
            refused = [
                caller.post("/v1/completions", json=ASK, headers=mine),
                caller.post("/v1/completions", json={**ASK, "stream": True}, headers=mine),
                caller.get("/v1/models", headers=mine),
                caller.get("/v1/attributions/cmpl-0", headers=mine),
                caller.get("/api/v1/shares", headers=theirs),
            ]
            page = caller.get("/console/responses", headers={"accept": "text/html"}, follow_redirects=True)
            path.with_name("aside.db").rename(path)
            until(lambda: caller.get("/health").status_code == 200)
            again = caller.post("/v1/completions", json=ASK, headers=mine)

        assert ("unavailable", "ok") == (health["status"], health["parts"]["model"])
        assert "ledger is gone" in health["parts"]["ledger"]
        assert "ledger_missing" == health["error"]["code"]
        for answer in refused:
            assert (503, "ledger_missing") == (answer.status_code, answer.json()["error"]["code"])
            assert "Retry-After" in answer.headers
        assert 503 == page.status_code
        assert 200 == again.status_code

    def test_what_a_replica_lost_is_named_before_the_ingress_sees_it(
        self, watched: FastAPI, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Both look for themselves, and one of them is first: the part is named all the same."""
        gone = "the service's ledger is gone"
        monkeypatch.setattr(engine, "check", AsyncMock(side_effect=UnavailableError(gone, code="ledger_missing")))
        with TestClient(watched) as caller:
            answer = caller.get("/health")

        assert (503, gone) == (answer.status_code, answer.json()["parts"]["ledger"])


class TestBooks:
    """Nobody is told that something is booked, spooled or sealed that is lost."""

    @pytest.mark.long
    def test_receipts_wait_in_the_spool_until_the_ledger_is_back(self, tmp_path: Path, demo: str) -> None:
        """While its file is gone a receipt is not called booked; the spool keeps it, and it is booked afterwards."""
        path = Path(demo.removeprefix("sqlite:///"))
        told: list[object] = []
        ledger, spool = Ledger(demo), Spool(tmp_path / "spool")
        bookings = BookingQueue(ledger, spool, lambda _receipts, _seconds: None)
        path.rename(tmp_path / "aside.db")
        receipt = make_receipt("cmpl-1")
        spool.append([record_of(receipt)])
        bookings.book(receipt, told.append)
        until(lambda: bool(told))
        waiting = len(spool)
        (tmp_path / "aside.db").rename(path)
        until(lambda: len(spool) == 0)
        booked = ledger.last_sequence()
        bookings.close()
        spool.close()
        ledger.close()

        assert ([None], 1, 1) == (told, waiting, booked)

    def test_spool_that_lost_its_name_takes_nothing(self, tmp_path: Path) -> None:
        """What is appended to a file without a name would be lost with the process: it is refused meanwhile."""
        with closing(Spool(tmp_path / "spool")) as spool:
            (tmp_path / "spool").rename(tmp_path / "aside")
            with pytest.raises(PartLostError) as raised:
                spool.check()
            with pytest.raises(SpoolError, match="is gone"):
                spool.append([record_of(make_receipt("cmpl-1"))])
            (tmp_path / "aside").rename(tmp_path / "spool")
            spool.check()
            spool.append([record_of(make_receipt("cmpl-1"))])
            live = len(spool.live_records())

        assert ("spool_missing", 1) == (raised.value.code, live)

    def test_nothing_is_sealed_of_a_ledger_that_was_set_back(
        self, tmp_path: Path, demo: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An older copy restored over it is not signed: whoever holds a later checkpoint would see a fork."""
        path = Path(demo.removeprefix("sqlite:///"))
        with closing(Ledger(demo)) as ledger:
            ledger.append(make_receipt("first"))
            with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(tmp_path / "old.db")) as target:
                source.backup(target)
            sealer = Sealer(ledger, SigningKey.generate("demo/ledger"), "demo/ledger", QUICK_S)
            ledger.append(make_receipt("second"))
            until(lambda: _sealed_receipts(ledger) == 2)
            with closing(sqlite3.connect(tmp_path / "old.db")) as source, closing(sqlite3.connect(path)) as target:
                source.backup(target)
            ledger.append(make_receipt("another second"))
            until(lambda: "set back" in caplog.text)
            sealer.close()

            assert 0 == _sealed_receipts(ledger)

    def test_exporter_tells_no_series_of_a_ledger_that_is_gone(self, tmp_path: Path, demo: str) -> None:
        """A scrape is 503 with the reason, and 200 again once the file is back."""
        path = Path(demo.removeprefix("sqlite:///"))
        with exporter(demo) as address:
            before = httpx.get(address, timeout=PATIENCE_S)
            path.rename(tmp_path / "aside.db")
            during = httpx.get(address, timeout=PATIENCE_S)
            (tmp_path / "aside.db").rename(path)
            after = httpx.get(address, timeout=PATIENCE_S)

        assert (200, 503, 200) == (before.status_code, during.status_code, after.status_code)
        assert "is gone" in during.text


def _sealed_receipts(ledger: Ledger) -> int:
    with ledger.database.read() as connection:
        return ledger.last_sequence() - count_unsealed(connection)[0]
