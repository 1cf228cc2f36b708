"""Who may call what: every route is closed but health, and roles do not mix."""

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from deployment.security import OPEN_ROUTES, ROLE_OF_PREFIX, role_of
from rewards import KeyRing
from tests.deployment.engines import ScriptedEngine
from tests.deployment.test_ingress import CHAT
from tests.deployment.test_refusals import error_of


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """Method and path of every route, as FastAPI itself documents them, and of the documentation itself."""
    documented = [(method.upper(), path) for path, item in app.openapi()["paths"].items() for method in item]
    assert len(documented) >= 9, "no routes were seen"
    return [*documented, ("GET", "/openapi.json")]


def test_every_route_but_health_asks_for_a_key(app: FastAPI, anonymous: TestClient) -> None:
    """Without a key every route answers 401 and the scheme that it wants, except `GET /health`."""
    for method, path in routes(app):
        response = anonymous.request(method, path)
        if (method, path) in OPEN_ROUTES:
            assert 200 == response.status_code
        else:
            assert "missing_api_key" == error_of(response, 401)["code"]
            assert "Bearer" == response.headers["www-authenticate"]


def test_every_route_has_a_role(app: FastAPI) -> None:
    """No registered route is left to any key: each is open by name, or lies under a prefix with a role."""
    assert all(role_of(path) for method, path in routes(app) if (method, path) not in OPEN_ROUTES)
    assert not any(isinstance(route, APIRoute) and route.path.startswith("/docs") for route in app.routes)


def test_roles_do_not_mix(app: FastAPI, application: TestClient, operator: TestClient) -> None:
    """An application may not call the operator API nor read the documentation, an operator may not call the model."""
    for method, path in routes(app):
        needed = role_of(path)
        if needed is None:
            continue
        wrong = operator if needed == "application" else application
        assert "wrong_role" == error_of(wrong.request(method, path), 403)["code"]


def test_operators_read_the_documentation(operator: TestClient) -> None:
    """The OpenAPI document is there for operators."""
    assert "/v1/chat/completions" in operator.get("/openapi.json").json()["paths"]


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic abc", "Bearer nonsense", "Bearer ptk_0123456789ab_" + "A" * 43, "ptk_x_y"],
)
def test_bad_key_is_refused(anonymous: TestClient, engine: ScriptedEngine, header: str) -> None:
    """A missing, malformed or unknown key is 401, and nothing is generated."""
    response = anonymous.post("/v1/chat/completions", json=CHAT, headers={"Authorization": header})

    assert error_of(response, 401)["code"] in {"missing_api_key", "invalid_api_key"}
    assert [] == engine.jobs


def test_revoked_key_is_refused_at_once(application: TestClient, keys: KeyRing, application_key: str) -> None:
    """A key that worked a moment ago is refused as soon as it is revoked; no answer repeats the key."""
    assert 200 == application.get("/v1/models").status_code
    keys.revoke(keys.list()[0].key_id)
    response = application.get("/v1/models")

    assert "invalid_api_key" == error_of(response, 401)["code"]
    assert application_key not in response.text


def test_key_is_asked_for_before_the_route_is_looked_up(anonymous: TestClient, application: TestClient) -> None:
    """Without a key not even the absence of a route can be learned; with any key it is a plain 404."""
    assert 401 == anonymous.get("/v2/nothing").status_code
    assert 404 == application.get("/v2/nothing").status_code


def test_prefixes_end_at_a_boundary() -> None:
    """`/v1/` does not cover `/v1x`, and the operator API is not under the application's prefix."""
    assert [None, "application", "operator"] == [role_of(path) for path in ("/v1x", "/v1/models", "/api/v1/credit")]
    assert {"application", "operator"} == {role for _prefix, role in ROLE_OF_PREFIX}
