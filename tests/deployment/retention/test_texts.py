"""Texts of finished responses: kept only where the service was told to, for a while, and never at the answer's cost."""

import logging
import os
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from deployment.app.http_app import build_app
from deployment.books.books import Books
from deployment.errors import SpoolError
from deployment.replica.messages import Failed, TokenCredit
from deployment.retention.replays import Replays
from deployment.retention.texts import KeptText, Texts
from deployment.settings import Settings
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from tests.deployment.gateway.engines import BASE_SHARE, CARD, SHARES, ScriptedEngine
from tests.deployment.gateway.test_routes import ROUTES, events
from tests.waiting import until

WEEK_S = 7 * 86_400
TEXT = KeptText("cmpl-1", "0123456789ab", CARD.name, 1_700_000_000_000_000, "Grüß Gott", SHARES, BASE_SHARE, ())


class FullTexts(Texts):
    """A store on a disk that is full."""

    def keep(self, text: KeptText) -> None:
        """Refuse."""
        raise SpoolError(f"{text.response_id} cannot be written: No space left on device")


@pytest.fixture
def texts(tmp_path: Path) -> Texts:
    """An empty store of texts, kept for a week."""
    return Texts(tmp_path / "texts", WEEK_S)


@pytest.fixture
def ask(
    engine: ScriptedEngine, ledger: Ledger, keys: KeyRing, replays: Replays, texts: Texts, application_key: str
) -> TestClient:
    """An application of a service that keeps texts."""
    return _application(engine, Books(ledger, keys), replays, texts, application_key)


def _application(engine: ScriptedEngine, books: Books, replays: Replays, texts: Texts | None, key: str) -> TestClient:
    app = build_app(engine, books, replays, default_max_tokens=64, texts=texts)
    return TestClient(app, raise_server_exceptions=False, headers={"Authorization": f"Bearer {key}"})


def age(file: Path, seconds: float) -> None:
    """Let a file be that much older than it is."""
    then = time.time() - seconds
    os.utime(file, (then, then))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("stream", [True, False])
def test_a_finished_response_is_kept_with_its_tokens(
    ask: TestClient, texts: Texts, application_key: str, route: str, stream: bool
) -> None:
    """Whole or streamed, the text is kept as it was sent, with whose it is and, where asked for, every token's part."""
    response = ask.post(route, json=ROUTES[route] | {"stream": stream, "attribution": "tokens"})
    response_id = events(response.text)[0]["id"] if stream else response.json()["id"]

    kept = texts.find(response_id)
    assert kept is not None
    scores = {client: 2 * share for client, share in SHARES.items()}
    tokens = tuple(
        TokenCredit(piece, 7 + index, SHARES, scores, BASE_SHARE) for index, piece in enumerate(("Grüß", " ", "Gott"))
    )
    key_id = application_key.split("_")[1]
    assert KeptText(response_id, key_id, CARD.name, kept.created_at_us, "Grüß Gott", SHARES, 0.25, tokens) == kept
    assert abs(kept.created_at_us / 1e6 - time.time()) < 60


def test_tokens_are_kept_only_where_they_were_asked_for(ask: TestClient, texts: Texts) -> None:
    """A response without per-token attribution is kept with its text and the shares of the whole."""
    response_id = ask.post("/v1/completions", json=ROUTES["/v1/completions"]).json()["id"]

    kept = texts.find(response_id)
    assert kept is not None
    assert ("Grüß Gott", SHARES, ()) == (kept.text, kept.shares, kept.tokens)


def test_prompts_are_not_kept(ask: TestClient, tmp_path: Path) -> None:
    """No file of the store holds what was asked."""
    asked = {"model": CARD.name, "prompt": "a very private question", "attribution": "tokens"}
    ask.post("/v1/completions", json=asked)

    (file,) = (tmp_path / "texts").iterdir()
    assert b"private" not in file.read_bytes()


def test_nothing_is_kept_unless_the_service_was_told_to(
    engine: ScriptedEngine, ledger: Ledger, keys: KeyRing, tmp_path: Path, application_key: str
) -> None:
    """The default is to keep no texts: no folder is set, and no file comes into being."""
    replays = Replays(tmp_path / "replays", 60.0)
    ask = _application(engine, Books(ledger, keys), replays, None, application_key)
    before = sorted(tmp_path.rglob("*"))

    assert 200 == ask.post("/v1/completions", json=ROUTES["/v1/completions"]).status_code
    new = {path.name.split("-")[0] for path in set(tmp_path.rglob("*")) - set(before)}
    assert new <= {"ledger.db"}
    assert Settings(bundle=tmp_path).texts is None


def test_a_response_that_failed_is_not_kept(ask: TestClient, engine: ScriptedEngine, tmp_path: Path) -> None:
    """What has no end has no text, also where some of it was delivered."""
    engine.failure = Failed(503, "the model went away", "engine_unavailable", credited=True)
    ask.post("/v1/completions", json=ROUTES["/v1/completions"] | {"stream": True})

    assert [] == list((tmp_path / "texts").iterdir())


def test_a_text_that_cannot_be_kept_does_not_harm_the_answer(
    engine: ScriptedEngine,
    ledger: Ledger,
    keys: KeyRing,
    replays: Replays,
    tmp_path: Path,
    application_key: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On a full disk the application gets its answer, and the log says which text is not kept."""
    texts = FullTexts(tmp_path / "texts", WEEK_S)
    ask = _application(engine, Books(ledger, keys), replays, texts, application_key)
    with caplog.at_level(logging.ERROR):
        body = ask.post("/v1/completions", json=ROUTES["/v1/completions"]).json()

    assert "Grüß Gott" == body["choices"][0]["text"]
    assert f"the text of response {body['id']} is not kept" in caplog.text


def test_texts_survive_a_restart(texts: Texts, tmp_path: Path) -> None:
    """Another process finds what the one before kept."""
    texts.keep(TEXT)
    assert TEXT == Texts(tmp_path / "texts", WEEK_S).find("cmpl-1")


def test_texts_are_for_their_owner_alone(texts: Texts, tmp_path: Path) -> None:
    """Nobody but the service's user may enter the folder or read a file."""
    texts.keep(TEXT)

    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "texts", tmp_path / "texts" / "cmpl-1.json")]
    assert [0o700, 0o600] == modes


def test_a_text_whose_time_is_over_is_not_shown_and_is_deleted_at_the_next_start(texts: Texts, tmp_path: Path) -> None:
    """After the window a text cannot be found even before it is swept; a start sweeps it, and leaves the young."""
    texts.keep(TEXT)
    texts.keep(replace(TEXT, response_id="cmpl-2"))
    age(tmp_path / "texts" / "cmpl-1.json", WEEK_S + 1)
    assert texts.find("cmpl-1") is None

    again = Texts(tmp_path / "texts", WEEK_S)
    until(lambda: not (tmp_path / "texts" / "cmpl-1.json").exists())
    assert ["cmpl-2.json"] == [path.name for path in (tmp_path / "texts").iterdir()]
    assert again.find("cmpl-2") is not None


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_text("{}"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_bytes(b"\xff\xfe\x00"),
    ],
    ids=["cut", "empty", "list", "no text"],
)
def test_a_file_that_cannot_be_read_is_reported_and_skipped(
    texts: Texts, tmp_path: Path, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged file counts as no text; the log names it."""
    texts.keep(TEXT)
    harm(tmp_path / "texts" / "cmpl-1.json")

    assert texts.find("cmpl-1") is None
    assert "cmpl-1.json cannot be read" in caplog.text


@pytest.mark.parametrize("response_id", ["", "../texts/cmpl-1", "cmpl-1/../cmpl-1", "cmpl-1.json", "\0", "é" * 9])
def test_an_id_that_is_no_name_of_a_file_finds_nothing(texts: Texts, response_id: str) -> None:
    """Whoever types paths into the search gets no file."""
    texts.keep(TEXT)
    assert texts.find(response_id) is None


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A service whose store cannot be used says which folder it is."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="texts"):
        Texts(tmp_path / "file" / "texts", WEEK_S)


def test_what_else_lies_in_the_folder_is_left_alone(texts: Texts, tmp_path: Path) -> None:
    """Whoever names a folder that is in use, even the ledger's, loses nothing; what a crash left half written goes."""
    folder = tmp_path / "texts"
    texts.keep(TEXT)
    others = ["ledger.db", "manifest.json", "notes", "pepper", "signing.key"]
    for name in (*others, "cmpl-2.json.tmp"):
        (folder / name).write_text("")
    for path in folder.iterdir():
        age(path, WEEK_S + 1)

    Texts(folder, WEEK_S)
    until(lambda: len(list(folder.iterdir())) <= len(others))
    assert others == sorted(path.name for path in folder.iterdir())


def test_a_text_that_a_copy_brought_back_is_its_owner_s_alone(tmp_path: Path) -> None:
    """A file that others could read is tightened when the service starts; what is not ours is left as it is."""
    folder = tmp_path / "texts"
    Texts(folder, WEEK_S).keep(replace(TEXT, response_id="chatcmpl-1"))
    ours, other = folder / "chatcmpl-1.json", folder / "somebody's.json"
    ours.chmod(0o644)
    other.touch(0o644)
    Texts(folder, WEEK_S)
    until(lambda: stat.S_IMODE(ours.stat().st_mode) == 0o600)

    assert (0o600, 0o644) == (stat.S_IMODE(ours.stat().st_mode), stat.S_IMODE(other.stat().st_mode))
