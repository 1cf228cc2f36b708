"""`protoken doctor`: each kind of fault is found and named, and whatever is there stays as it is."""

import json
import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from attribution.bundle.bundle import open_bundle
from deployment.cli import extras, main
from deployment.cli.doctor import folders
from deployment.cli.doctor.clock import look_at_clock
from deployment.cli.doctor.findings import DoubtError, FaultError
from deployment.replica.bundles.publish import publish, publish_setting
from deployment.settings import Settings
from rewards.keys.pepper import load_or_make
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import introduce, seal
from rewards.signing.keys import SigningKey
from rewards.store import publications
from tests.attribution.consortia import base_model, lora_update, write_consortium
from tests.deployment.replica.engines.fake_engine import NAME, FakeEngine
from tests.end_to_end.service import free_port
from tests.rewards.conftest import new_database
from tests.rewards.receipts import make_receipt

Edit = Callable[["Service"], None]


class Service:
    """What an operator has on disk: settings, and everything that they name.

    Attributes:
        folder: of all of it.
        settings: as they stand in the file.
        rounds: two bundles of one consortium, of which the first is published, and one of another of the same name.
    """

    def __init__(self, folder: Path, rounds: tuple[Path, Path, Path]) -> None:
        self.folder, self.rounds = folder, rounds
        ports = [free_port() for _ in range(3)]
        self.settings: dict[str, Any] = {
            "bundle": str(rounds[0]),
            "ledger": f"sqlite:///{folder}/ledger.db",
            "pepper_file": str(folder / "pepper"),
            "signing_key": str(folder / "signing.key"),
            "spool": str(folder / "spool"),
            "texts": str(folder / "texts"),
            "policy": str(folder / "policy.yaml"),
            **dict(zip(("port", "metrics_port", "replica_metrics_port"), ports, strict=True)),
        }

    def make(self) -> None:
        """As a service leaves it that stopped in order."""
        url = self.settings["ledger"]
        Ledger.prepare(url)
        with closing(Ledger(url)) as ledger:
            publish_setting(ledger, open_bundle(self.rounds[0]))
            ledger.append(make_receipt("r1", shares={"clinic": 0.5}))
            key = SigningKey.generate("demo/ledger")
            key.save(self.folder / "signing.key")
            introduce(ledger, key.public)
            seal(ledger, key, "demo/ledger")
        with closing(KeyRing(url, load_or_make(self.folder / "pepper", url))) as ring:
            ring.create("operator", "test", actor="test")
        (self.folder / "policy.yaml").write_text("pool: 1000\ncurrency: EUR\n")
        for name in ("spool", "texts"):
            (self.folder / name).mkdir(mode=0o700)

    def write(self) -> Path:
        """The file of the settings."""
        file = self.folder / "serve.yaml"
        file.write_text(yaml.safe_dump(self.settings))
        return file


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Two rounds of one consortium, and another consortium of the same name."""
    base, folders_ = base_model("llama"), []
    for number, names in ((1, ("clinic", "bank")), (2, ("clinic", "bank")), (1, ("mine", "yours"))):
        updates = {name: lora_update(base, 10 * len(folders_) + n, first_block=2) for n, name in enumerate(names)}
        folders_.append(write_consortium(tmp_path_factory.mktemp("round"), base, updates, name="demo", number=number))
    return folders_[0], folders_[1], folders_[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, rounds: tuple[Path, Path, Path]) -> Path:
    """Everything on disk, made once, to be copied."""
    service = Service(tmp_path_factory.mktemp("made"), rounds)
    service.make()
    return service.folder


@pytest.fixture
def service(made: Path, tmp_path: Path, rounds: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> Service:
    """In order, and stopped."""
    for name in (*Settings.model_fields, "config", "engine_api_key"):
        monkeypatch.delenv(f"PROTOKEN_{name.upper()}", raising=False)
    monkeypatch.setattr(folders, "_OF_MEMORY", set())  # where tests may be kept, unlike a service
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path / "service")
    return Service(tmp_path / "service", rounds)


def _contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Everything under a folder, with its mode; of a -shm file, which is memory that programs share, no bytes."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mode,
            path.read_bytes() if path.is_file() and not path.name.endswith("-shm") else b"",
        )
        for path in folder.rglob("*")
    }


def examined(capsys: pytest.CaptureFixture[str], service: Service) -> tuple[int, dict[str, tuple[str, str]]]:
    """Exit code, and state and message by item; nothing on disk is another than before."""
    config, before = service.write(), _contents(service.folder.parent)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--config", str(config), "--json"])
    document = json.loads(capsys.readouterr().out)

    assert before == _contents(service.folder.parent)
    assert document["ok"] == (not ended.value.code)
    found = {each["item"]: (each["state"], each["message"]) for each in document["findings"]}
    assert len(found) == len(document["findings"])
    assert all(len(message.splitlines()) == 1 for _, message in found.values())
    return ended.value.code or 0, found


def test_a_service_in_order_is_found_so(capsys: pytest.CaptureFixture[str], service: Service) -> None:
    """Exit code 0; everything that the settings name has a line."""
    code, found = examined(capsys, service)

    assert {} == {item: each for item, each in found.items() if each[0] != "ok"}
    assert 0 == code
    things = {"settings", "extras", "ledger", "clock", "pepper", "signing_key", "spool", "texts", "policy", "engine"}
    assert things | {"port", "metrics_port", "replica_metrics_port", f"bundle {service.rounds[0]}"} == set(found)


def test_people_are_shown_a_line_each(capsys: pytest.CaptureFixture[str], service: Service) -> None:
    """Beginning with its state, however narrow the terminal; exit code 1 where one is wrong."""
    (service.folder / "policy.yaml").unlink()
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--config", str(service.write())])
    lines = capsys.readouterr().out.splitlines()

    assert 1 == ended.value.code
    assert {"ok", "wrong"} == {line.split()[0] for line in lines}
    assert any(line.startswith("wrong    policy: ") and "policy.yaml" in line for line in lines)


def test_where_nothing_is_yet_nothing_is_made(capsys: pytest.CaptureFixture[str], service: Service) -> None:
    """Before the first start: what would be made is told, and the folder stays empty."""
    service.settings |= {"ledger": f"sqlite:///{service.folder}/deep/new.db", "texts": str(service.folder / "a" / "b")}
    del service.settings["pepper_file"], service.settings["policy"]
    service.settings |= {name: str(service.folder / "new" / name) for name in ("signing_key", "spool")}
    code, found = examined(capsys, service)

    assert (0, {"ok"}) == (code, {state for state, _ in found.values()})
    assert all("not there yet" in found[item][1] for item in ("ledger", "pepper", "signing_key"))
    assert "can be made" in found["spool"][1]


def test_the_environment_alone_will_do(
    capsys: pytest.CaptureFixture[str], service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a bundle that is told, and everything else is looked at, in an empty folder that stays empty."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    for name in ("port", "metrics_port", "replica_metrics_port"):
        monkeypatch.setenv(f"PROTOKEN_{name.upper()}", str(service.settings[name]))
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    lines = capsys.readouterr().out.splitlines()

    assert 1 == ended.value.code
    assert ["settings"] == [line.split()[1].rstrip(":") for line in lines if line.startswith("wrong")]
    assert "PROTOKEN_BUNDLE" in lines[0]
    assert len(lines) > 8
    assert [] == [*empty.iterdir()]


def _edit_ledger(statement: str) -> Edit:
    def edit(service: Service) -> None:
        with closing(sqlite3.connect(service.folder / "ledger.db", isolation_level=None)) as connection:
            connection.execute(statement)

    return edit


def _set(**settings: Any) -> Edit:
    """Settings; FOLDER stands for the service's, ROUND2 and OTHER for its other bundles."""

    def edit(service: Service) -> None:
        words = {"FOLDER": service.folder, "ROUND1": service.rounds[0], "ROUND2": service.rounds[1]}
        words |= {"OTHER": service.rounds[2], "PORT": service.settings["port"]}
        text = json.dumps(settings)
        for word, value in words.items():
            text = text.replace(word, str(value))
        service.settings |= json.loads(text)

    return edit


def _file(name: str, content: bytes) -> Edit:
    def edit(service: Service) -> None:
        (service.folder / name).write_bytes(content)

    return edit


def _both(first: Edit, second: Edit) -> Edit:
    def edit(service: Service) -> None:
        first(service)
        second(service)

    return edit


def _chmod(name: str, mode: int) -> Edit:
    return lambda service: (service.folder / name).chmod(mode)


def _unlink(name: str) -> Edit:
    return lambda service: (service.folder / name).unlink()


def _own_bundle(service: Service) -> Path:
    shutil.copytree(service.rounds[0], service.folder / "bundle")
    service.settings["bundle"] = str(service.folder / "bundle")
    return service.folder / "bundle"


def _alter_bundle(service: Service) -> None:
    update = next((_own_bundle(service) / "clients").rglob("*.safetensors"))
    content = bytearray(update.read_bytes())
    content[-1] ^= 1
    update.write_bytes(bytes(content))


def _publish(bundle: int, *, then_remove: bool = False) -> Edit:
    def edit(service: Service) -> None:
        folder = service.folder / "published"
        shutil.copytree(service.rounds[bundle], folder)
        with closing(Ledger(service.settings["ledger"])) as ledger:
            publish(ledger, open_bundle(folder), "test")
        if then_remove:
            shutil.rmtree(folder)

    return edit


def _other_manifest(service: Service) -> None:
    """A ledger in which the bundle's global model was published with other clients."""
    manifest = open_bundle(service.rounds[1]).manifest
    with closing(Ledger(service.settings["ledger"])) as ledger, ledger.database.write() as connection:
        publications.publish(
            connection,
            "demo",
            bundle="/elsewhere",
            model_sha256=manifest.global_.sha256,
            manifest_sha256="0" * 64,
            round_number=2,
            actor="test",
        )
    service.settings["bundle"] = str(service.rounds[1])


def _new_ledger(consortium: str, key: str) -> Edit:
    """Another ledger, which knows one consortium, and neither key."""

    def edit(service: Service) -> None:
        url = service.settings["ledger"] = f"sqlite:///{service.folder}/other.db"
        Ledger.prepare(url)
        with closing(Ledger(url)) as ledger:
            ledger.register(consortium, {"port": "A port"})
        service.settings["signing_key"] = str(service.folder / key)

    return edit


def _another_signing_key(service: Service) -> None:
    (service.folder / "signing.key").unlink()
    SigningKey.generate("demo/ledger").save(service.folder / "signing.key")


def _orphaned_log(service: Service) -> None:
    """The ledger and its write-ahead log as somebody copies them from a running service."""
    file = service.folder / "ledger.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = version_num")
        connection.commit()
        for end in ("", "-wal"):
            shutil.copy(f"{file}{end}", f"{service.folder}/copied.db{end}")
    service.settings["ledger"] = f"sqlite:///{service.folder}/copied.db"


WRONG, WARNING = "wrong", "warning"
FAULTS: dict[str, tuple[Edit, str, str, str]] = {
    "unknown setting": (_set(prot=80), "settings", WRONG, "'prot' is not known"),
    "spool is a file": (_set(spool="FOLDER/pepper"), "spool", WRONG, "/pepper cannot be used: Not a directory"),
    "spool under a file": (_set(spool="FOLDER/pepper/spool"), "spool", WRONG, "cannot be used: Not a directory"),
    "texts where nothing is kept": (_set(texts="/proc/texts"), "texts", WRONG, "texts /proc/texts cannot be used"),
    "spool open to others": (_chmod("spool", 0o755), "spool", WARNING, "spool (mode 755)"),
    "ledger open to others": (
        _chmod("ledger.db", 0o644),
        "ledger",
        WARNING,
        "ledger.db can be read by others (mode 644)",
    ),
    "ledger no database": (_file("ledger.db", b"mine" * 2000), "ledger", WRONG, "ledger.db: file is not a database"),
    "ledger of something else": (
        _both(_unlink("ledger.db"), _edit_ledger("CREATE TABLE mine (a)")),
        "ledger",
        WRONG,
        "holds the tables of something else",
    ),
    "older schema": (
        _edit_ledger("UPDATE alembic_version SET version_num = '0006'"),
        "ledger",
        WRONG,
        "made by an older protoken: it is of schema 0006",
    ),
    "newer schema": (
        _edit_ledger("UPDATE alembic_version SET version_num = '9999'"),
        "ledger",
        WRONG,
        "made by a newer protoken",
    ),
    "ledger gone, its log there": (
        _both(_unlink("ledger.db"), _file("ledger.db-wal", b"x" * 99)),
        "ledger",
        WRONG,
        "is gone, and ledger.db-wal, which holds its latest receipts",
    ),
    "no write-ahead mode": (_edit_ledger("PRAGMA journal_mode = DELETE"), "ledger", WARNING, "no write-ahead mode"),
    "a log that nobody has open": (
        _orphaned_log,
        "ledger",
        WARNING,
        "copied.db-wal holds receipts that nobody has open",
    ),
    "ledger where none can be": (
        _set(ledger="sqlite:////proc/l.db"),
        "ledger",
        WRONG,
        "ledger /proc/l.db cannot be used",
    ),
    "database that is away": (
        _set(ledger="postgresql://me@127.0.0.1:PORT/books", pepper_file="FOLDER/pepper"),
        "ledger",
        WRONG,
        "postgresql://me@127.0.0.1:",
    ),
    "pepper missing": (_unlink("pepper"), "pepper", WRONG, "/pepper is missing, and without it no key"),
    "pepper too short": (_file("pepper", b"short"), "pepper", WRONG, "holds 5 bytes and must hold 32"),
    "pepper open to others": (_chmod("pepper", 0o644), "pepper", WARNING, "pepper can be read by others (mode 644)"),
    "ledger gone": (_unlink("ledger.db"), "ledger", WRONG, "signing.key is the signing key of one that was"),
    "signing key missing": (_unlink("signing.key"), "signing_key", WRONG, "signing.key is missing, and the ledger is"),
    "another signing key": (_another_signing_key, "signing_key", WRONG, "is none of this ledger's"),
    "signing key of a ledger that is lost": (
        _new_ledger("harbour", key="signing.key"),
        "signing_key",
        WRONG,
        "is none of this ledger's, which no key has signed yet: where the key's own ledger is lost, bring that back",
    ),
    "no signing key": (_file("signing.key", b"mine"), "signing_key", WRONG, "it must begin with"),
    "signing key open to others": (_chmod("signing.key", 0o640), "signing_key", WARNING, "(mode 640): chmod 600"),
    "policy missing": (_unlink("policy.yaml"), "policy", WRONG, "policy.yaml"),
    "policy that is none": (_file("policy.yaml", b"pool: -1\ncurrency: EUR\n"), "policy", WRONG, "pool"),
    "two settings of one port": (
        lambda service: service.settings.update(metrics_port=service.settings["port"]),
        "ports",
        WRONG,
        "port and metrics_port are both",
    ),
    "bundle missing": (_set(bundle="FOLDER/none"), "bundle FOLDER/none", WRONG, "FOLDER/none/consortium.json"),
    "bundle altered": (_alter_bundle, "bundle FOLDER/bundle", WRONG, "differs from the manifest's hash"),
    "bundle of another consortium of that name": (
        _set(bundle="OTHER"),
        "bundle OTHER",
        WRONG,
        "none of mine, yours is a client of consortium 'demo'",
    ),
    "bundle of a consortium that is new": (
        _new_ledger("harbour", key="not-made-yet.key"),
        "bundle ROUND1",
        WARNING,
        "the ledger knows harbour, and not 'demo'",
    ),
    "bundle never published": (_set(bundle="ROUND2"), "bundle ROUND2", WARNING, "round 2 was never published"),
    "another round published": (_publish(1), "bundle ROUND1", WARNING, "round 2 of demo is served, from"),
    "published round gone": (_publish(1, then_remove=True), "bundle ROUND1", WRONG, "published/consortium.json"),
    "model published with other clients": (
        _other_manifest,
        "bundle ROUND2",
        WRONG,
        "has the global model of /elsewhere",
    ),
    "two bundles of one consortium": (
        _set(more_bundles=["ROUND2"]),
        "bundles together",
        WRONG,
        "are both of consortium 'demo'",
    ),
    "engine away": (
        _set(engine={"kind": "openai", "url": "http://127.0.0.1:PORT"}),
        "engine",
        WRONG,
        "the engine",
    ),
    "engine's key missing": (
        _set(engine={"kind": "openai", "url": "http://127.0.0.1:PORT", "api_key_file": "FOLDER/none.key"}),
        "engine",
        WRONG,
        "none.key cannot be read",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(capsys: pytest.CaptureFixture[str], service: Service, fault: str) -> None:
    """In the line of its thing, with the file, setting or value; exit code 1 where it is wrong."""
    edit, item, state, words = FAULTS[fault]
    edit(service)
    places = {"FOLDER": service.folder, "ROUND1": service.rounds[0], "ROUND2": service.rounds[1]}
    for word, place in {**places, "OTHER": service.rounds[2]}.items():
        item, words = item.replace(word, str(place)), words.replace(word, str(place))
    code, found = examined(capsys, service)

    assert item in found, found
    assert (state, True) == (found[item][0], words in found[item][1]), found[item][1]
    others = {name: each for name, each in found.items() if name != item and each[0] == WRONG}
    assert {} == others
    assert (1 if state == WRONG else 0) == code


def _hang_up(listening: socket.socket) -> None:
    listening.accept()[0].close()


def test_a_busy_port_is_named(capsys: pytest.CaptureFixture[str], service: Service) -> None:
    """One that somebody else listens on, who is asked and says nothing that a service would."""
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", service.settings["port"]))
        other.listen()
        threading.Thread(target=_hang_up, args=(other,), daemon=True).start()
        code, found = examined(capsys, service)

    assert (1, "wrong") == (code, found["port"][0])
    assert f"cannot listen on 127.0.0.1:{service.settings['port']}: Address already in use" in found["port"][1]
    assert "ok" == found["metrics_port"][0]


class _Answers(BaseHTTPRequestHandler):
    said = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.said)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def listening() -> Iterator[Callable[[int, bytes], None]]:
    """Has somebody listen on a port, who says the same to everybody."""
    servers: list[HTTPServer] = []

    def listen(port: int, said: bytes) -> None:
        servers.append(HTTPServer(("127.0.0.1", port), type("_Own", (_Answers,), {"said": said})))
        threading.Thread(target=servers[-1].serve_forever, args=(0.05,), daemon=True).start()

    yield listen
    for server in servers:
        server.shutdown()
        server.server_close()


def test_ports_of_a_running_service_are_its_own(
    capsys: pytest.CaptureFixture[str], service: Service, listening: Callable[[int, bytes], None]
) -> None:
    """Whoever listens is asked: API, exporter and replicas' series are told apart from a stranger's page."""
    listening(service.settings["port"], b'{"status": "degraded", "parts": {"model": "ok"}}')
    listening(service.settings["metrics_port"], b"# HELP x\nprotoken_credit_total 1\n")
    listening(service.settings["replica_metrics_port"], b"<html>")
    code, found = examined(capsys, service)

    assert (1, "wrong") == (code, found["replica_metrics_port"][0])
    assert "held by a protoken service that runs: its API, whose health is degraded" in found["port"][1]
    assert "its exporter" in found["metrics_port"][1]


def test_port_of_another_service_is_not_free_for_this_one(
    capsys: pytest.CaptureFixture[str], service: Service, listening: Callable[[int, bytes], None]
) -> None:
    """Where nobody has the port of the API, whose exporter it is that has another: this service could not start."""
    listening(service.settings["metrics_port"], b"# HELP x\nprotoken_credit_total 1\n")
    code, found = examined(capsys, service)

    assert (1, "ok", "wrong") == (code, found["port"][0], found["metrics_port"][0])
    assert "whose API is not at this one's port: its exporter; set another metrics_port" in found["metrics_port"][1]


def test_a_ledger_in_use_is_read_and_left(capsys: pytest.CaptureFixture[str], service: Service) -> None:
    """While somebody has it open, and after he was killed: what waits in its log is seen, and stays there."""
    with closing(Ledger(service.settings["ledger"])) as ledger:
        ledger.append(make_receipt("r2", shares={"clinic": 0.5}))
        code, found = examined(capsys, service)
        killed = service.folder / "killed"
        killed.mkdir()
        for end in ("", "-wal", "-shm"):
            shutil.copy(service.folder / f"ledger.db{end}", killed / f"ledger.db{end}")
    service.settings["ledger"] = f"sqlite:///{killed}/ledger.db"
    (killed / "ledger.db").chmod(0o600)
    after_kill, left = examined(capsys, service)

    assert (0, 0) == (code, after_kill)
    assert "with 2 receipts" in found["ledger"][1]
    assert "with 2 receipts" in left["ledger"][1]


def test_a_full_disk_and_one_of_a_network_are_doubtful(
    capsys: pytest.CaptureFixture[str], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This disk, if it were so: as the system tells its room and its kind."""
    kind = folders._kind_of_disk(service.folder)
    monkeypatch.setattr(folders, "ROOM_BYTES", 2**60)
    monkeypatch.setattr(folders, "_OF_A_NETWORK", {kind})
    code, found = examined(capsys, service)

    assert (0, "warning", "warning") == (code, found["spool"][0], found["ledger"][0])
    assert "GiB free on its disk" in found["spool"][1]
    assert f"is on a network disk ({kind})" in found["spool"][1]


def test_a_missing_extra_is_named(
    capsys: pytest.CaptureFixture[str], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to install."""
    monkeypatch.setitem(extras.EXTRAS, "serve", ("no_such_module",))
    code, found = examined(capsys, service)

    assert (1, "wrong") == (code, found["extras"][0])
    assert "pip install 'protoken[serve]'" in found["extras"][1]


@pytest.mark.parametrize(("behind_s", "error"), [(30, DoubtError), (3600, FaultError)])
def test_a_clock_that_is_slow_is_named(service: Service, behind_s: int, error: type[Exception]) -> None:
    """Against the newest that the ledger has stamped: a little is doubtful, more is wrong."""
    with pytest.raises(error, match=f"the ledger was stamped .* already, {behind_s - 1}|already, {behind_s}"):
        look_at_clock(service.settings["ledger"], lambda: _stamped_ns(service) - behind_s * 10**9)
    assert "after all" in look_at_clock(service.settings["ledger"])


def _stamped_ns(service: Service) -> int:
    with closing(sqlite3.connect(service.folder / "ledger.db")) as connection:
        return int(connection.execute("SELECT max(sealed_at_us) FROM checkpoints").fetchone()[0]) * 1000


def test_a_database_server_s_clock_is_held_against_this_one(postgresql: str) -> None:
    """Two clocks that differ are told, whichever is right."""
    url = new_database(postgresql)
    Ledger.prepare(url)

    assert "UTC" in look_at_clock(url)
    with pytest.raises(FaultError, match=r"database server's .* 600 s apart"):
        look_at_clock(url, lambda: time.time_ns() + 600 * 10**9)


def test_an_empty_database_is_where_the_ledger_will_be(
    capsys: pytest.CaptureFixture[str], service: Service, postgresql: str
) -> None:
    """On PostgreSQL nothing is made either; beside a signing key it is where a ledger was."""
    service.settings["ledger"] = new_database(postgresql)
    lost = examined(capsys, service)
    service.settings["signing_key"] = str(service.folder / "none.key")
    code, found = examined(capsys, service)

    assert (0, "ok") == (code, found["ledger"][0])
    assert "an empty database, in which the first start makes the ledger" in found["ledger"][1]
    assert "clock" not in found
    assert (1, "wrong") == (lost[0], lost[1]["ledger"][0])
    assert f"{service.folder}/signing.key is the signing key of one that was" in lost[1]["ledger"][1]


def test_an_engine_is_asked_what_it_serves(capsys: pytest.CaptureFixture[str], service: Service) -> None:
    """One that serves the model is in order; one that serves another is named with both."""
    engine = FakeEngine()
    engine.start()
    try:
        service.settings["engine"] = {"kind": "openai", "url": engine.url, "model": NAME}
        in_order = examined(capsys, service)[1]["engine"]
        engine.served = ["another"]
        code, found = examined(capsys, service)
    finally:
        engine.stop()

    assert "ok" == in_order[0]
    assert (1, ("wrong", f"the engine serves another, not {NAME}")) == (code, found["engine"])
