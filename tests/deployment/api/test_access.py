"""Every role against every route, on both databases: who gets in, and that a member is told nothing of others.

The table says a second time, apart from `roles`, who may call what; a route that is not in it fails the tests.
"""

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from deployment.app.http_app import build_app
from deployment.retention.replays import Replays
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from tests.deployment.api.reading import DATABASES
from tests.deployment.api.world import ROLES, World, make_world
from tests.deployment.gateway.engines import CARD, ScriptedEngine

pytestmark = pytest.mark.parametrize("url", DATABASES, indirect=True)

APPLICATION = {"application"}
READERS = {"operator", "auditor", "admin"}
MEMBERS_TOO = {"member", *READERS}
EVERYBODY = {None, *ROLES}
TABLE: dict[tuple[str, str], set[Any]] = {
    ("GET", "/health"): EVERYBODY,
    ("GET", "/openapi.json"): EVERYBODY,
    ("GET", "/v1/models"): APPLICATION,
    ("GET", "/v1/models/{name}"): APPLICATION,
    ("GET", "/v1/attributions/{response_id}"): APPLICATION,
    ("POST", "/v1/chat/completions"): APPLICATION,
    ("POST", "/v1/completions"): APPLICATION,
    ("GET", "/api/v1/consortium"): MEMBERS_TOO,
    ("GET", "/api/v1/clients"): MEMBERS_TOO,
    ("GET", "/api/v1/clients/{client}"): MEMBERS_TOO,
    ("GET", "/api/v1/shares"): MEMBERS_TOO,
    ("GET", "/api/v1/credit"): MEMBERS_TOO,
    ("GET", "/api/v1/entries"): MEMBERS_TOO,
    ("GET", "/api/v1/receipts"): READERS,
    ("GET", "/api/v1/receipts/{response_id}"): READERS,
    ("POST", "/api/v1/receipts/{response_id}/reversal"): {"operator"},
    ("GET", "/api/v1/events"): READERS,
    ("GET", "/api/v1/exports/entries.csv"): READERS,
    ("GET", "/api/v1/exports/receipts.jsonl"): READERS,
    ("GET", "/api/v1/periods"): MEMBERS_TOO,
    ("GET", "/api/v1/periods/{name}"): MEMBERS_TOO,
    ("GET", "/api/v1/periods/{name}/explanation/{client}"): MEMBERS_TOO,
    ("POST", "/api/v1/periods/{name}/preview"): READERS,
    ("POST", "/api/v1/periods/{name}/close"): {"operator"},
    ("POST", "/api/v1/periods/{name}/dispute"): {"operator"},
    ("POST", "/api/v1/periods/{name}/finalise"): {"operator"},
    ("POST", "/api/v1/periods/{name}/pay"): {"operator"},
    ("GET", "/api/v1/holds"): READERS,
    ("POST", "/api/v1/holds"): {"operator"},
    ("GET", "/api/v1/holds/{hold_id}"): READERS,
    ("POST", "/api/v1/holds/{hold_id}/release"): {"operator"},
    ("GET", "/api/v1/statements"): MEMBERS_TOO,
    ("GET", "/api/v1/statements/{period}/{client}"): MEMBERS_TOO,
    ("GET", "/api/v1/rounds"): MEMBERS_TOO,
    ("GET", "/api/v1/rounds/{publication}"): MEMBERS_TOO,
    ("GET", "/api/v1/log/checkpoint"): MEMBERS_TOO,
    ("GET", "/api/v1/log/keys"): MEMBERS_TOO,
    ("GET", "/api/v1/log/calibrations"): MEMBERS_TOO,
    ("GET", "/api/v1/log/inclusion"): MEMBERS_TOO,
    ("GET", "/api/v1/log/consistency"): MEMBERS_TOO,
    ("GET", "/api/v1/log/proof/{response_id}"): MEMBERS_TOO,
    ("POST", "/api/v1/log/seal"): {"operator"},
    ("GET", "/api/v1/keys"): {"admin"},
    ("POST", "/api/v1/keys"): {"admin"},
    ("GET", "/api/v1/keys/{key_id}"): {"admin"},
    ("POST", "/api/v1/keys/{key_id}/rotate"): {"admin"},
    ("DELETE", "/api/v1/keys/{key_id}"): {"admin"},
}
# What a member may try in the place of a name in a path: what is another's, and what is not there at all.
FOREIGN = {"client": "clinic", "response_id": "clinic-alone", "name": "first", "period": "first"}
NOBODY = {"client": "nobody", "response_id": "no-such-response", "name": "no-such-period", "period": "no-such-period"}


@pytest.fixture
def world(ledger: Ledger, keys: KeyRing, tmp_path: Path) -> World:
    """Books with something of everything."""
    return make_world(ledger, keys, tmp_path)


@pytest.fixture
def app(engine: ScriptedEngine, world: World, replays: Replays) -> FastAPI:
    """The HTTP surface over them."""
    return build_app(engine, world.books, replays, default_max_tokens=64, max_tokens_cap=100)


def filled(path: str, names: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: names.get(found[1], "x"), path)


def test_every_route_is_in_the_table(app: FastAPI) -> None:
    """What the OpenAPI document lists is what the table lists, and the document itself."""
    listed = {(method.upper(), path) for path, item in app.openapi()["paths"].items() for method in item}

    assert listed | {("GET", "/openapi.json")} == set(TABLE)


def test_each_role_gets_in_where_it_may_and_nowhere_else(app: FastAPI, world: World) -> None:
    """Without a key it is 401, with the key of another role 403, and with a good one neither."""
    wrong = []
    for role in (None, *ROLES):
        headers = {} if role is None else {"Authorization": f"Bearer {world.keys[role]}"}
        with TestClient(app, headers=headers, raise_server_exceptions=False) as client:
            for (method, path), allowed in TABLE.items():
                status = client.request(method, filled(path, FOREIGN)).status_code
                expected = 401 if role is None else 403
                if (status == expected) != (role not in allowed) or status >= 500:
                    wrong.append((role, method, path, status))

    assert [] == wrong


def test_no_other_method_or_spelling_opens_a_route(app: FastAPI, world: World) -> None:
    """A method that a route does not have, a doubled slash, an encoded letter or a prefix lets no member in either."""
    spellings = (
        "/api/v1//receipts",
        "//api/v1/receipts",
        "/api/v1/Receipts",
        "/api/v1/receipts/",
        "/api/v1/%72eceipts",
    )
    others = ("/api/v2/receipts", "/api/v1/keys/../receipts", "/api/v1/clients/../keys", "/api/v1/clients/%2e%2e/keys")
    with TestClient(app, headers={"Authorization": f"Bearer {world.keys['member']}"}) as client:
        for path in (*spellings, *others):
            assert client.get(path).status_code in (401, 403, 404), path
        for method, path in TABLE:
            for other in {"POST", "PUT", "PATCH", "DELETE", "TRACE"} - {method}:
                if (other, path) not in TABLE:
                    assert client.request(other, filled(path, FOREIGN)).status_code in (403, 404, 405), (other, path)


def member_calls() -> list[tuple[str, dict[str, Any]]]:
    """Every call by which a member might be told of others: of each route that it may call, each way to ask."""
    queries: list[dict[str, Any]] = [
        {},
        {"client": "clinic"},
        {"client": ["bank", "clinic"]},
        {"client": "commons"},
        {"period": "first", "client": "clinic"},
        {"period": "second"},
        {"limit": 1},
        {"format": "csv"},
        {"format": "html"},
    ]
    queries += [{"source": source, "sequence": number} for source in ("receipt", "event") for number in range(1, 40)]
    queries += [{"first": 1}, {"size": 1}]
    paths = [path for (method, path), allowed in TABLE.items() if method == "GET" and "member" in allowed]
    paths.remove("/openapi.json")  # the same for everybody, with or without a key: its examples have names of their own
    named = [{**FOREIGN, "client": client, "response_id": response} for client in ("bank", "clinic", "commons")
             for response in ("shared-one", "clinic-alone", "reversal-clinic-again")]  # fmt: skip
    calls = [(filled(path, names), query) for path in paths for names in named for query in queries]
    return list({(path, str(query)): (path, query) for path, query in calls}.values())  # each once


def test_a_member_is_told_nothing_of_others(app: FastAPI, world: World) -> None:
    """However it asks, no body and no header holds another client's name, credit, money or responses, nor a key."""
    asked = 0
    answered = set()
    with TestClient(app, headers={"Authorization": f"Bearer {world.keys['member']}"}) as client:
        for path, query in member_calls():
            answer = client.get(path, params=query)
            told = f"{answer.headers} {answer.text}"
            for echo in re.findall(r"[\w-]+", f"{path} {query.get('client', '')}"):  # what it said itself is no news
                told = told.replace(f"'{echo}'", "") if answer.status_code == 404 else told
            found = [secret for secret in world.secrets if secret in told]
            assert [] == found, (path, query, answer.status_code, told)
            assert answer.status_code < 500, (path, query)
            asked += 1
            answered |= {path} if answer.is_success else set()

    assert asked > 500
    assert len(answered) >= 14, "so little was answered that little can have leaked"


def test_the_same_calls_tell_an_operator_of_everybody(app: FastAPI, world: World) -> None:
    """What is looked for in a member's answers is there to be found: an operator's answers are full of it."""
    with TestClient(app, headers={"Authorization": f"Bearer {world.keys['operator']}"}) as client:
        told = "".join(client.get(path, params=query).text for path, query in member_calls() if "sequence" not in query)

    hidden = [secret for secret in world.secrets if secret not in told]
    assert len(hidden) < len(world.secrets) / 2, hidden


def test_what_is_another_s_is_to_a_member_as_what_is_not_there(app: FastAPI, world: World) -> None:
    """Asked for another's client, response or statement, the answer is word for word that for a name nobody has."""
    with TestClient(app, headers={"Authorization": f"Bearer {world.keys['member']}"}) as client:
        for path, parameters in (
            ("/api/v1/clients/{client}", {}),
            ("/api/v1/statements/first/{client}", {}),
            ("/api/v1/periods/first/explanation/{client}", {}),
            ("/api/v1/log/proof/{response_id}", {}),
            ("/api/v1/log/proof/shared-one", {"client": "{client}"}),
            ("/api/v1/shares", {"client": "{client}"}),
            ("/api/v1/credit", {"client": "{client}"}),
            ("/api/v1/entries", {"client": "{client}"}),
            ("/api/v1/statements", {"client": "{client}"}),
        ):
            told = []
            for names in (FOREIGN, NOBODY):
                query = {name: filled(value, names) for name, value in parameters.items()}
                answer = client.get(filled(path, names), params=query)
                text = answer.text
                for name in (names["response_id"], names["client"]):  # the longer one holds the other
                    text = text.replace(name, "…")
                told.append((answer.status_code, text))
            assert told[0] == told[1], (path, parameters)


def test_an_application_is_told_nothing_of_another_s_responses(app: FastAPI, world: World) -> None:
    """A response that another key made does not exist, in the same words as one that nobody made."""
    with TestClient(app, headers={"Authorization": f"Bearer {world.keys['application']}"}) as client:
        foreign, nobody = (client.get(f"/v1/attributions/{name}") for name in ("clinic-alone", "no-such-response"))

        assert 200 == client.get("/v1/attributions/shared-one").status_code
        assert (404, 404) == (foreign.status_code, nobody.status_code)
        assert foreign.text.replace("clinic-alone", "…") == nobody.text.replace("no-such-response", "…")
        assert CARD.name in client.get("/v1/models").text
