"""Several consortia behind one surface: each request goes to the model it names, and one may be away."""

from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from deployment.app.http_app import build_app
from deployment.books.books import Books
from deployment.gateway.model_router import Models
from deployment.replica.messages import Event, Job, ModelCard
from deployment.retention.replays import Replays
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from tests.deployment.gateway.engines import CARD, ScriptedEngine
from tests.deployment.gateway.test_refusals import error_of


class OneModel:
    """The replicas of one model, over the fake that answers to its own name."""

    def __init__(self, ledger: Ledger, name: str) -> None:
        self.card = replace(CARD, name=name)
        self.behind = ScriptedEngine(ledger)
        self.behind.pieces = (name, " says", " so")

    async def describe(self) -> ModelCard:
        """What is served."""
        await self.behind.check(CARD.name)
        return self.card

    async def check(self) -> ModelCard:
        """The same."""
        return await self.describe()

    async def count_replicas(self) -> int | None:
        """As the fake has it."""
        return await self.behind.count_replicas()

    def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """The fake's events."""
        return self.behind.generate(job)


@pytest.fixture
def models(ledger: Ledger) -> dict[str, OneModel]:
    """Two of them."""
    return {name: OneModel(ledger, name) for name in ("health", "law")}


@pytest.fixture
def caller(
    models: dict[str, OneModel], ledger: Ledger, keys: KeyRing, replays: Replays, application_key: str
) -> Iterator[TestClient]:
    """An application over both."""
    app = build_app(Models(models), Books(ledger, keys), replays, default_max_tokens=64)
    with TestClient(app, headers={"Authorization": f"Bearer {application_key}"}) as client:
        yield client


def ask(caller: TestClient, model: str) -> str:
    """What a model says."""
    answer = caller.post("/v1/completions", json={"model": model, "prompt": "hello"})
    text: str = answer.json()["choices"][0]["text"]
    return text


def test_each_request_goes_to_the_model_it_names(caller: TestClient, models: dict[str, OneModel]) -> None:
    """All are listed, each is found by its name, and no other engine sees the request."""
    said = [ask(caller, "health"), ask(caller, "law"), ask(caller, "law")]
    listed = [each["id"] for each in caller.get("/v1/models").json()["data"]]

    assert ["health says so", "law says so", "law says so"] == said
    assert [1, 2] == [len(each.behind.jobs) for each in models.values()]
    assert ["health", "law"] == listed
    assert "law" == caller.get("/v1/models/law").json()["id"]


def test_an_unknown_name_lists_what_there_is(caller: TestClient) -> None:
    """With 404, also where it is asked for by itself."""
    answers = [caller.post("/v1/completions", json={"model": "tax", "prompt": "x"}), caller.get("/v1/models/tax")]

    assert [
        "there is no model 'tax' here; 'health', 'law' are served",
        "there is no model 'tax' here; 'health', 'law' are served",
    ] == [error_of(answer, 404)["message"] for answer in answers]


def test_a_model_that_is_away_takes_no_other(caller: TestClient, models: dict[str, OneModel]) -> None:
    """Its requests are 503; the others are answered, and health tells which it is; with none, all is unavailable."""
    models["law"].behind.down = True
    refused = caller.post("/v1/completions", json={"model": "law", "prompt": "x"})
    health, listed = caller.get("/health"), caller.get("/v1/models").json()["data"]

    assert "engine_unavailable" == error_of(refused, 503)["code"]
    assert "health says so" == ask(caller, "health")
    assert ["health"] == [each["id"] for each in listed]
    assert (200, "degraded") == (health.status_code, health.json()["status"])
    assert {"model health": "ok", "model law": "no replica of the model answers"} == health.json()["parts"]
    models["health"].behind.down = True
    assert 503 == caller.get("/health").status_code == caller.get("/v1/models").status_code


def test_a_bundle_that_cannot_be_served_shows_in_health(caller: TestClient, models: dict[str, OneModel]) -> None:
    """The one before is served, so nothing is refused."""
    models["law"].card = replace(models["law"].card, fault="round 2 is published and cannot be loaded")
    health = caller.get("/health")

    assert (200, "degraded") == (health.status_code, health.json()["status"])
    assert "round 2 is published and cannot be loaded" == health.json()["parts"]["publication law"]
    assert "law says so" == ask(caller, "law")
