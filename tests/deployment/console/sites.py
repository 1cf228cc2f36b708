"""Consoles that listen on a real port, for browsers: the world of the operator API, and a crowd of fifty clients."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn

from deployment.app.http_app import build_app
from deployment.books.books import Books
from deployment.replica.messages import TokenCredit
from deployment.retention.replays import Replays
from deployment.retention.texts import KeptText, Texts
from rewards import periods
from rewards.credit import Receipt, canonical_bytes, receipt_amounts
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import seal
from rewards.settlement.policy import Policy
from rewards.signing.keys import SigningKey
from tests.deployment.api.world import ORIGIN, World, make_world
from tests.deployment.calibrations import book_report, report_of
from tests.deployment.conftest import CLIENTS, PEPPER
from tests.deployment.console.conftest import read_once
from tests.deployment.gateway.engines import CARD, ScriptedEngine
from tests.deployment.recorded_bundles import manifest_document, publish_document
from tests.waiting import PATIENCE_S, until

CROWD = 50
LONGEST = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"
ODD = (LONGEST, "O", "<b>Bold & Söhne</b> “AG”", "مستشفى المدينة التعليمي", "東京総合病院")
SAID = "In the morning the harbour bell is rung by whoever keeps the lighthouse , and the ferries leave ."
WORDS = (*SAID.split(), "\n")


@dataclass(frozen=True)
class Site:
    """A console that listens.

    Attributes:
        address: of the service, without a path.
        world: its books and keys.
        response_id: of a response that has a heat map.
    """

    address: str
    world: World
    response_id: str


@contextmanager
def world_site(folder: Path) -> Iterator[Site]:
    """Books with something of everything."""
    with _books(folder, CLIENTS) as (ledger, keys):
        world = make_world(ledger, keys, folder)
        publish_document(ledger, folder / "bundle", manifest_document(CARD.name, [*CLIENTS], 12))
        book_report(ledger, report_of(CARD.name, CARD.global_sha256))
        with _listening(world.books, Texts(folder / "texts", 3600.0), folder) as address:
            yield Site(address, world, ask(address, world.keys["application"]))


@contextmanager
def crowd_site(folder: Path) -> Iterator[Site]:
    """Fifty clients, some with odd names, a draft and an open period, and a text that all of them taught."""
    long = {f"client-{n:02d}": f"Institute for Applied Language Models and Records No. {n}" for n in range(CROWD)}
    clients = long | {f"client-{n:02d}": name for n, name in enumerate(ODD)}
    with _books(folder, clients) as (ledger, keys):
        made = {role: keys.create(role, f"the {role}’s desk", actor="test") for role in ("operator", "application")}
        made["member"] = keys.create("member", "desk", actor="test", client="client-00")
        policy = Policy(currency="EUR", pool=123_456_789, dispute_days=30)
        (folder / "policy.yaml").write_bytes(canonical_bytes(policy.model_dump(mode="json", exclude_none=True)))
        application = made["application"].split("_")[1]
        ledger.append_many([_receipt(n, application, clients) for n in range(120)])
        periods.close(ledger, "2026-10", policy, made["operator"].split("_")[1])
        ledger.append_many([_receipt(n, application, clients) for n in range(120, 200)])
        key = SigningKey.generate(ORIGIN)
        key.save(folder / "signing.key")
        seal(ledger, key, ORIGIN)
        texts = Texts(folder / "texts", 3600.0)
        texts.keep(_text(199, application, clients))
        books = Books(ledger, keys, folder / "signing.key", folder / "policy.yaml")
        with _listening(books, texts, folder) as address:
            yield Site(address, World(books, made, ()), "crowd-199")


def ask(address: str, key: str) -> str:
    """A response with the score of each token: its id."""
    body = {"model": CARD.name, "messages": [{"role": "user", "content": "hello"}], "attribution": "tokens"}
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx.post(f"{address}/v1/chat/completions", json=body, headers=headers, timeout=PATIENCE_S)
    return str(answer.raise_for_status().json()["id"])


@contextmanager
def _books(folder: Path, clients: dict[str, str]) -> Iterator[tuple[Ledger, KeyRing]]:
    url = f"sqlite:///{folder}/ledger.db"
    Ledger.prepare(url)
    with closing(Ledger(url)) as ledger, closing(KeyRing(url, PEPPER)) as keys:
        ledger.register(CARD.name, clients)
        yield ledger, keys


@contextmanager
def _listening(books: Books, texts: Texts, folder: Path) -> Iterator[str]:
    """The whole app over a scripted engine on a free port of loopback: its address."""
    engine, replays = ScriptedEngine(books.ledger), Replays(folder / "replays", 60.0)
    app = read_once(build_app(engine, books, replays, default_max_tokens=64, texts=texts))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive())
    assert server.started, "the server did not start"
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def _shares(number: int, clients: dict[str, str]) -> dict[str, float]:
    """Of a response: some clients more than others, some nothing; they sum to 0.75."""
    weights = {client: (7 * number + 3 * place) % 11 / (1 + place) for place, client in enumerate(clients)}
    return {client: 0.75 * weight / sum(weights.values()) for client, weight in weights.items()}


def _receipt(number: int, application: str, clients: dict[str, str]) -> Receipt:
    shares, tokens = _shares(number, clients), len(WORDS)
    return Receipt(
        response_id=f"crowd-{number}",
        created_at_us=time.time_ns() // 1000 - (200 - number) * 60_000_000,
        application=application,
        consortium=CARD.name,
        model_sha256=CARD.global_sha256,
        method="credit",
        settings={"nodes": 2},
        version="1",
        tokens=tokens,
        amounts=receipt_amounts(f"crowd-{number}", tokens, shares, 0.25),
        measurement={"gain": 0.3},
        duration_us=1_500_000,
    )


def _text(number: int, application: str, clients: dict[str, str]) -> KeptText:
    """What `number` said: at each token another client is on top."""
    shares, tokens = _shares(number, clients), []
    for place, word in enumerate(WORDS):
        scores = {client: ((place + 5 * n) % CROWD - 10) / CROWD for n, client in enumerate(clients)}
        tokens.append(TokenCredit(f" {word}" if place else word, place, shares, scores, (place % 5) / 5))
    text = "".join(token.token for token in tokens)
    at_us = time.time_ns() // 1000
    return KeptText(f"crowd-{number}", application, CARD.name, at_us, text, shares, 0.25, tuple(tokens))
