"""Who may call what: a table of roles, a gate that keeps to it, and what a member may see."""

import pytest
from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import JSONResponse
from starlette.testclient import WebSocketDenialResponse
from starlette.types import Receive, Scope, Send

from deployment.access.gate import caller, visible_client
from deployment.access.key_cache import FRESH_S
from deployment.access.permissions import OPEN_ROUTES, RULES, roles_for
from rewards.keys.ring import KeyRing
from rewards.keys.rules import ROLES
from rewards.store.database import now_us
from tests.deployment.conftest import PEPPER, gate_over
from tests.deployment.gateway.engines import ScriptedEngine
from tests.deployment.gateway.test_refusals import error_of
from tests.deployment.gateway.test_routes import CHAT
from tests.deployment.outages import Clock, away
from tests.waiting import until

APPLICATION, MEMBER, OPERATOR, ADMIN = {"application"}, {"member"}, {"operator"}, {"admin"}
READERS = {"operator", "auditor", "admin"}
NOBODY: set[str] = set()

# Written apart from the rules, call by call: what a role may and may not.
CALLS = {
    "GET /v1/models": APPLICATION,
    "GET /v1/attributions/chatcmpl-1": APPLICATION,
    "POST /v1/chat/completions": APPLICATION,
    "DELETE /v1/anything": APPLICATION,
    "GET /api/v1/consortium": MEMBER | READERS,
    "GET /api/v1/clients": MEMBER | READERS,
    "GET /api/v1/clients/bank": MEMBER | READERS,
    "GET /api/v1/shares": MEMBER | READERS,
    "GET /api/v1/credit": MEMBER | READERS,
    "GET /api/v1/entries": MEMBER | READERS,
    "GET /api/v1/periods": MEMBER | READERS,
    "GET /api/v1/periods/2026-11": MEMBER | READERS,
    "GET /api/v1/statements/2026-11/bank": MEMBER | READERS,
    "GET /api/v1/log/checkpoint": MEMBER | READERS,
    "GET /api/v1/log/proofs/entries/7": MEMBER | READERS,
    "GET /api/v1/receipts": READERS,
    "GET /api/v1/receipts/chatcmpl-1": READERS,
    "GET /api/v1/events": READERS,
    "GET /api/v1/holds": READERS,
    "GET /api/v1/holds/1": READERS,
    "GET /api/v1/exports/entries": READERS,
    "GET /api/v1/settlements/2026-11": READERS,
    "GET /api/v1/added-later": READERS,
    "GET /api/v1/sharesandmore": READERS,
    "GET /api/v1/keysandmore": READERS,
    "GET /api/v1/keys": ADMIN,
    "GET /api/v1/keys/0123456789ab": ADMIN,
    "POST /api/v1/keys": ADMIN,
    "POST /api/v1/keys/0123456789ab/rotate": ADMIN,
    "DELETE /api/v1/keys/0123456789ab": ADMIN,
    "PUT /api/v1/keys/0123456789ab": NOBODY,
    "POST /api/v1/periods": OPERATOR,
    "POST /api/v1/periods/2026-11/close": OPERATOR,
    "POST /api/v1/holds": OPERATOR,
    "POST /api/v1/holds/1/release": OPERATOR,
    "POST /api/v1/receipts/chatcmpl-1/reversal": OPERATOR,
    "POST /api/v1/log/seal": OPERATOR,
    "POST /api/v1/receipts": NOBODY,
    "POST /api/v1/receipts/chatcmpl-1": NOBODY,
    "POST /api/v1/receipts/a/b/reversal": NOBODY,
    "POST /api/v1/log": NOBODY,
    "POST /api/v1/log/seal/more": NOBODY,
    "POST /api/v1/clients": NOBODY,
    "POST /api/v1/shares": NOBODY,
    "POST /api/v1/added-later": NOBODY,
    "DELETE /api/v1/periods/2026-11": NOBODY,
    "DELETE /api/v1/holds/1": NOBODY,
    "PATCH /api/v1/entries": NOBODY,
    "HEAD /api/v1/credit": NOBODY,
}
NOWHERE = [
    "/docs/",
    "/docs/static",
    "/docs/oauth2-redirect",
    "/redoc",
    "/openapi.json/",
    "/v2/models",
    "/v1x",
    "/api",
    "/apix/v1/credit",
    "/api/v2/keys",
    "//v1/models",
    "/V1/models",
    "/metrics",
]
MEMBERS_PARTS = {"consortium", "clients", "shares", "credit", "entries", "periods", "statements", "log"}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """An app behind the gate: whom it let in, and what they may see."""
    request = Request(scope)
    key = caller(request)
    client = visible_client(request) if key.role != "application" else "nobody's"
    await JSONResponse({"role": key.role, "client": client})(scope, receive, send)


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """Method and path of every route, as FastAPI itself documents them, and of the documentation itself."""
    documented = [(method.upper(), path) for path, item in app.openapi()["paths"].items() for method in item]
    assert len(documented) >= 9, "no routes were seen"
    return [*documented, *sorted(OPEN_ROUTES)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(keys: KeyRing, clock: Clock) -> TestClient:
    """A caller without key in front of a gate; behind it is `echo`."""
    return TestClient(gate_over(echo, keys, clock=clock), raise_server_exceptions=False)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_each_role_may_do_what_the_table_says_and_nothing_else(keys: KeyRing, gate: TestClient) -> None:
    """Every role tries every call: it is let in, or refused with the names of the roles that may."""
    headers = {
        role: bearer(keys.create(role, "x", actor="test", client="bank" if role == "member" else None))
        for role in ROLES
    }
    for call, may in CALLS.items():
        method, path = call.split()
        for role in ROLES:
            response = gate.request(method, path, headers=headers[role])
            if role in may:
                assert 200 == response.status_code, (call, role)
                continue
            assert 403 == response.status_code, (call, role)
            if method != "HEAD":
                error = error_of(response, 403)
                assert "wrong_role" == error["code"]
                named = set(error["message"].partition("; the key")[0].split())
                assert may == named & set(ROLES), (call, role)


@pytest.mark.parametrize("path", NOWHERE)
def test_what_is_not_in_the_table_does_not_exist(gate: TestClient, keys: KeyRing, path: str) -> None:
    """With any key, a path outside the table is 404, though the app behind the gate would answer it."""
    for role in ("application", "admin"):
        headers = bearer(keys.create(role, "x", actor="test"))
        assert "unknown_route" == error_of(gate.get(f"http://testserver{path}", headers=headers), 404)["code"]


SEGMENTS = st.sampled_from(
    [
        *sorted(MEMBERS_PARTS),
        "keys",
        "holds",
        "receipts",
        "reversal",
        "seal",
        "events",
        "v1",
        "api",
        "x",
        "",
        "..",
        "a\nb",
    ]
)
PATHS = (
    st.lists(SEGMENTS, max_size=4)
    .map("/".join)
    .flatmap(lambda rest: st.sampled_from([f"/api/v1/{rest}", f"/v1/{rest}", f"/{rest}", f"/api/v1{rest}"]))
)
METHODS = st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "WEBSOCKET", "get", ""])


@given(method=METHODS, path=PATHS)
def test_duties_are_apart_whatever_is_called(method: str, path: str) -> None:
    """On any path: applications have /v1 alone, members and auditors only read, and nobody has both money and keys."""
    roles = set(roles_for(method, path) or ())

    assert not roles or ("application" in roles) == (path == "/v1" or path.startswith("/v1/"))
    if "member" in roles:
        assert "GET" == method
        assert path.removeprefix("/api/v1/").split("/")[0] in MEMBERS_PARTS
    if path.startswith("/api/v1/"):
        assert method == "GET" or roles in (set(), OPERATOR, ADMIN)
        if path.split("/")[3] == "keys":
            assert roles <= ADMIN
        elif "admin" in roles:
            assert "GET" == method


def test_every_route_has_a_role(app: FastAPI) -> None:
    """Each registered route is open by name, or some role may call it; there are no others."""
    for method, path in routes(app):
        assert (method, path) in OPEN_ROUTES or roles_for(method, path), f"nobody may {method} {path}"
    assert not any(isinstance(route, APIRoute) and route.path.startswith("/docs") for route in app.routes)


def test_rules_name_roles_that_exist() -> None:
    """No line of the table is for a role that no key can have, and every role has a line."""
    assert set(ROLES) == {role for _methods, _path, roles in RULES for role in roles}


def test_every_route_that_is_not_open_asks_for_a_key(app: FastAPI, anonymous: TestClient) -> None:
    """Without a key every route answers 401 and the scheme that it wants, except those that are everybody's."""
    for method, path in routes(app):
        response = anonymous.request(method, path)
        if (method, path) in OPEN_ROUTES:
            assert (404 if path == "/" else 200) == response.status_code, path
        else:
            assert "missing_api_key" == error_of(response, 401)["code"]
            assert "Bearer" == response.headers["www-authenticate"]


def test_what_is_open_is_health_and_the_description_of_the_service() -> None:
    """Nothing of the books and nothing of the model is read without a key."""
    assert {("GET", path) for path in ("/", "/health", "/openapi.json", "/docs")} == {
        (method, path) for method, path in OPEN_ROUTES if not path.startswith("/docs/static/")
    }


def test_everybody_reads_the_documentation(
    anonymous: TestClient, operator: TestClient, application: TestClient, member: TestClient
) -> None:
    """The OpenAPI document is there without a key, and the same with any."""
    first, *others = (client.get("/openapi.json").json() for client in (anonymous, operator, application, member))

    assert {"/v1/chat/completions", "/api/v1/credit"} <= first["paths"].keys()
    assert [first] * 3 == others


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic abc", "Bearer nonsense", "Bearer ptk_0123456789ab_" + "A" * 43, "ptk_x_y"],
)
def test_bad_key_is_refused(anonymous: TestClient, engine: ScriptedEngine, header: str) -> None:
    """A missing, malformed or unknown key is 401, and nothing is generated."""
    response = anonymous.post("/v1/chat/completions", json=CHAT, headers={"Authorization": header})

    assert error_of(response, 401)["code"] in {"missing_api_key", "invalid_api_key"}
    assert [] == engine.jobs


def test_under_another_pepper_every_key_is_refused(url: str, keys: KeyRing, application_key: str) -> None:
    """A service with the wrong pepper opens for nobody."""
    other = KeyRing(url, bytes(32))
    response = TestClient(gate_over(echo, other)).get("/v1/models", headers=bearer(application_key))
    other.close()

    assert "invalid_api_key" == error_of(response, 401)["code"]
    assert PEPPER != bytes(32)


def test_revoked_key_is_refused_within_seconds(
    gate: TestClient, clock: Clock, keys: KeyRing, application_key: str
) -> None:
    """A key that worked a moment ago is refused once its answer is old; the answer says why and does not repeat it."""
    assert 200 == gate.get("/v1/models", headers=bearer(application_key)).status_code
    keys.revoke(keys.list()[0].key_id, actor="test")
    clock.now += FRESH_S
    response = gate.get("/v1/models", headers=bearer(application_key))

    error = error_of(response, 401)
    assert "invalid_api_key" == error["code"]
    assert "revoked" in error["message"]
    assert application_key not in response.text


def test_expired_key_is_told_so(gate: TestClient, keys: KeyRing) -> None:
    """Whoever holds the secret of an expired key learns that it has expired; a guess at it learns nothing."""
    presented = keys.create("application", "x", actor="test", expires_at_us=now_us() + 100_000)
    while now_us() < (keys.list()[0].expires_at_us or 0):
        pass
    guess = presented[:-2] + ("AA" if presented[-2:] != "AA" else "BB")

    assert "expired" in error_of(gate.get("/v1/models", headers=bearer(presented)), 401)["message"]
    assert "not known" in error_of(gate.get("/v1/models", headers=bearer(guess)), 401)["message"]


def test_rotated_key_works_beside_its_successor_until_the_overlap_ends(
    gate: TestClient, clock: Clock, keys: KeyRing, application_key: str
) -> None:
    """During the overlap both keys pass, after it the new one alone."""
    key_id = keys.list()[0].key_id
    new = keys.rotate(key_id, actor="test", overlap_s=1)
    assert [200, 200] == [gate.get("/v1/models", headers=bearer(key)).status_code for key in (application_key, new)]
    while now_us() < (keys.list()[0].expires_at_us or 0):
        pass
    assert [401, 200] == [gate.get("/v1/models", headers=bearer(key)).status_code for key in (application_key, new)]


def test_while_the_ledger_is_away_known_keys_pass_and_others_are_told(
    gate: TestClient, clock: Clock, keys: KeyRing, application_key: str
) -> None:
    """A key that was seen a moment ago is let in; one that was not gets 503 and when to come back, not 401."""
    assert 200 == gate.get("/v1/models", headers=bearer(application_key)).status_code
    other = keys.create("application", "other", actor="test")
    with away(keys.database, "api_keys"):
        clock.now += 3 * FRESH_S
        assert 200 == gate.get("/v1/models", headers=bearer(application_key)).status_code
        response = gate.get("/v1/models", headers=bearer(other))
    assert "ledger_unavailable" == error_of(response, 503)["code"]
    assert "5" == response.headers["retry-after"]


def test_the_use_of_a_key_is_noted(keys: KeyRing, application_key: str) -> None:
    """Once a key was let in, the list of keys says when."""
    before_us = now_us()
    assert keys.list()[0].last_used_at_us is None
    TestClient(gate_over(echo, keys)).get("/v1/models", headers=bearer(application_key))
    until(lambda: keys.list()[0].last_used_at_us is not None)

    assert before_us <= (keys.list()[0].last_used_at_us or 0) <= now_us()


def test_a_member_sees_its_own_client_and_readers_see_all(gate: TestClient, keys: KeyRing) -> None:
    """What may be seen follows from the key alone, whatever the path and the query ask for."""
    for client in ("bank", "clinic"):
        headers = bearer(keys.create("member", "x", actor="test", client=client))
        for path in ("/api/v1/clients/bank", "/api/v1/entries?client=clinic", "/api/v1/statements/2026-11/clinic"):
            assert {"role": "member", "client": client} == gate.get(path, headers=headers).json()
    for role in sorted(READERS):
        headers = bearer(keys.create(role, "x", actor="test"))
        assert {"role": role, "client": None} == gate.get("/api/v1/entries?client=bank", headers=headers).json()


def test_the_host_header_does_not_move_the_path(gate: TestClient, application_key: str) -> None:
    """A path that is smuggled in beside the real one is not the one that is judged."""
    headers = {**bearer(application_key), "Host": "x/v1/models?"}

    assert "wrong_role" == error_of(gate.get("/api/v1/credit", headers=headers), 403)["code"]


def test_key_is_asked_for_before_the_route_is_looked_up(anonymous: TestClient, application: TestClient) -> None:
    """Without a key not even the absence of a route can be learned; with any key it is a plain 404."""
    assert 401 == anonymous.get("/v2/nothing").status_code
    assert 404 == application.get("/v2/nothing").status_code


def test_websockets_are_closed_too(gate: TestClient, application_key: str) -> None:
    """There are none, and trying is answered as any other call: 401 without a key, 404 with one."""
    for headers, status in (({}, 401), (bearer(application_key), 404)):
        with pytest.raises(WebSocketDenialResponse) as denied, gate.websocket_connect("/ws", headers=headers):
            pass
        assert status == denied.value.status_code
