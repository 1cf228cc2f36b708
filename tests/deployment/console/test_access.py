"""Every role against every page, on both databases: who gets in, and that a member is shown nothing of others.

The table says a second time, apart from `access`, who may see what; a page that is not in it fails the tests.
"""

import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from starlette.routing import BaseRoute, Mount

from deployment.access import permissions
from deployment.console.gate import roles_for
from deployment.console.sessions import COOKIE, Sessions
from tests.deployment.api.reading import DATABASES
from tests.deployment.api.test_access import FOREIGN, NOBODY, filled
from tests.deployment.api.world import ROLES, World
from tests.deployment.console.conftest import SignIn, token_of

READERS = {"operator", "auditor", "admin"}
MEMBERS_TOO = {"member", *READERS}
SIGNED_IN = {*ROLES}
ANYBODY = {None, *ROLES}
TABLE: dict[tuple[str, str], set[Any]] = {
    ("GET", "/static"): ANYBODY,
    ("GET", "/sign-in"): ANYBODY,
    ("POST", "/sign-in"): ANYBODY,
    ("POST", "/sign-out"): SIGNED_IN,
    ("GET", "/"): SIGNED_IN,
    ("GET", "/clients"): MEMBERS_TOO,
    ("GET", "/clients/{client}"): MEMBERS_TOO,
    ("GET", "/responses"): SIGNED_IN,
    ("GET", "/responses/{response_id}"): SIGNED_IN,
    ("GET", "/responses/{response_id}/proof"): MEMBERS_TOO,
    ("POST", "/responses/{response_id}/reversal"): {"operator"},
    ("GET", "/playground"): {"application", "operator", "admin"},
    ("POST", "/playground/key"): {"application", "operator", "admin"},
    ("POST", "/playground/answer"): {"application", "operator", "admin"},
    ("GET", "/periods"): MEMBERS_TOO,
    ("GET", "/periods/preview"): READERS,
    ("GET", "/periods/{name}"): MEMBERS_TOO,
    ("GET", "/periods/{name}/explanation/{client}"): MEMBERS_TOO,
    ("POST", "/periods/close"): {"operator"},
    ("POST", "/periods/{name}/finalise"): {"operator"},
    ("POST", "/periods/{name}/dispute"): {"operator"},
    ("POST", "/periods/{name}/pay"): {"operator"},
    ("GET", "/holds"): READERS,
    ("POST", "/holds"): {"operator"},
    ("POST", "/holds/{hold_id}/release"): {"operator"},
    ("GET", "/statements"): MEMBERS_TOO,
    ("GET", "/statements/keys.pub"): MEMBERS_TOO,
    ("GET", "/statements/{period}/{file}"): MEMBERS_TOO,
    ("GET", "/rounds"): MEMBERS_TOO,
    ("GET", "/trust"): MEMBERS_TOO,
    ("GET", "/trust/proof"): MEMBERS_TOO,
    ("GET", "/trust/proof.json"): MEMBERS_TOO,
    ("GET", "/trust/consistency.json"): MEMBERS_TOO,
    ("POST", "/trust/consistency"): MEMBERS_TOO,
    ("GET", "/trust/verify"): READERS,
    ("POST", "/trust/verify"): READERS,
}
STYLES = "/static/console.css"
FILES = ("clinic.json", "bank.json", "bank.html", "clinic.csv", "commons.json")


def console_of(app: FastAPI) -> FastAPI:
    """The console's own app."""
    (mounted,) = [route for route in app.routes if isinstance(route, Mount) and route.path == "/console"]
    assert isinstance(mounted.app, FastAPI)
    return mounted.app


def listed(routes: list[BaseRoute]) -> set[tuple[str, str]]:
    """Method and path of every route, whatever it is; a mounted folder is read."""
    return {(method, str(route.path)) for route in iter_route_contexts(routes) for method in (route.methods or {"GET"})}


def test_every_page_is_in_the_table(app: FastAPI) -> None:
    """What the console has is what the table lists."""
    assert listed(console_of(app).routes) == set(TABLE)


def test_a_page_that_is_not_in_the_table_is_noticed(app: FastAPI) -> None:
    """However it came in: as a route, within a router, or as another method of a path that is listed."""
    console, part = console_of(app), APIRouter()
    part.add_api_route("/clients/{client}/secrets", lambda: None)
    part.add_api_route("/clients", lambda: None, methods=["DELETE"], include_in_schema=False)
    console.include_router(part)
    console.add_route("/plain", lambda _: None)  # type: ignore[arg-type]

    added = listed(console.routes) - set(TABLE)

    expected = {("GET", "/clients/{client}/secrets"), ("DELETE", "/clients"), ("GET", "/plain"), ("HEAD", "/plain")}
    assert expected == added


def test_a_page_without_a_rule_is_closed(app: FastAPI, sign_in: SignIn) -> None:
    """Whoever adds one and forgets the rule has added nothing."""
    console_of(app).add_api_route("/forgotten", lambda: {"secret": True})

    for role in ROLES:
        assert 404 == sign_in(role).get("/console/forgotten").status_code


@pytest.mark.parametrize("url", DATABASES, indirect=True)
def test_each_role_sees_the_pages_it_may_and_no_other(nobody: TestClient, world: World) -> None:
    """Without a session it is the sign-in, or 401 for a form; with the key of another role 403; else neither."""
    sessions, keys = Sessions(world.books.keys), world.books.keys
    wrong, asked = [], 0
    for role in (None, *ROLES):
        cookie = "" if role is None else sessions.begin(keys.check(world.keys[role]))
        session = sessions.read(cookie)
        token = "" if session is None else sessions.csrf(session)
        headers = {"Cookie": f"{COOKIE}={cookie}", "X-CSRF-Token": token}
        for (method, path), allowed in TABLE.items():
            nobody.cookies.clear()
            asked_for = "/console" + filled(path.replace("/static", STYLES), {**FOREIGN, "file": "clinic.json"})
            answer = nobody.request(method, asked_for, headers=headers)
            if role in allowed:
                is_right = answer.status_code not in {401, 403, 405} or (role is None and path == "/sign-in")
                is_right &= "/sign-in" not in answer.headers.get("location", "") or path == "/sign-out"
                is_right |= (method, path) == ("POST", "/sign-in")  # refuses no role, but the key that is not there
            elif role is not None:
                is_right = answer.status_code == 403
            elif method == "GET":
                is_right = (answer.status_code, answer.headers["location"].partition("?")[0]) == (
                    303,
                    "/console/sign-in",
                )
            else:
                is_right = answer.status_code == 401
            if not is_right or answer.status_code >= 500:
                wrong.append((role, method, path, answer.status_code, answer.text[-600:]))
            asked += 1

    assert [] == wrong
    assert 6 * len(TABLE) == asked


def test_no_other_method_or_spelling_opens_a_page(sign_in: SignIn) -> None:
    """A method that a page does not have, a doubled slash, an encoded letter or a detour lets no member in."""
    browser = sign_in("member")
    token = {"X-CSRF-Token": token_of(browser)}
    for path in (
        "/console//holds",
        "/console/Holds",
        "/console/clients/../holds",
        "/console/clients/%2e%2e/holds",
        "/console/static/../holds",
        "/console/static/%2e%2e/holds",
        "/console/sign-in/../holds",
        "/console/%68olds",
        "/console/holds/",
        "/CONSOLE/holds",
        "/console/console/holds",
    ):
        assert browser.get(path).status_code in (401, 403, 404), path
    for method, path in TABLE:
        for other in {"POST", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS"} - {method}:
            if (other, path) not in TABLE:
                answer = browser.request(other, "/console" + filled(path, FOREIGN), headers=token)
                assert answer.status_code in (403, 404, 405), (other, path)
        if method == "GET":  # HEAD shows no more of a page than GET does
            asked = "/console" + filled(path, FOREIGN)
            assert browser.get(asked, headers=token).status_code == browser.head(asked, headers=token).status_code


@pytest.mark.parametrize(
    "path", ["/console/static/../app.py", "/console/static/%2e%2e/app.py", "/console/static/..%2fapp.py"]
)
def test_static_files_are_those_of_their_folder(nobody: TestClient, path: str) -> None:
    """Nothing beside the folder is given away."""
    answer = nobody.get(path)

    assert "build_console" not in answer.text
    assert answer.status_code in (303, 404)


def member_pages() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every way in which a member might be shown something of others."""
    queries: list[dict[str, Any]] = [{}, {"client": "clinic"}, {"client": "commons"}, {"period": "first"}]
    queries += [{"period": "second", "client": "clinic"}, {"response": "clinic-alone"}, {"response_id": "clinic-alone"}]
    queries += [{"first": 1}, {"size": 1}, {"application": "desk"}, {"cursor": "WzFd"}]
    for (method, path), allowed in TABLE.items():
        if method == "GET" and "member" in allowed and path != "/static":
            names = [
                {**FOREIGN, "client": client, "response_id": response, "file": file, "name": name}
                for client in ("bank", "clinic", "commons")
                for response in ("shared-one", "clinic-alone", "reversal-clinic-again")
                for file in FILES
                for name in ("first", "second")
            ]
            for filled_in in dict.fromkeys(filled(path, each) for each in names):
                for query in queries:
                    yield f"/console{filled_in}", query


def told(path: str, query: dict[str, Any], browser: TestClient) -> tuple[int, str]:
    """Status and everything that is in an answer, but for what the question said itself."""
    answer = browser.get(path, params=query)
    in_one_piece = re.sub('<span class="fine">|</span>', "", answer.text)  # a page sets last digits of figures back
    text = f"{answer.headers} {unescape(in_one_piece)}"
    if answer.status_code == 404:
        for echo in sorted({*re.findall(r"[\w-]+", path), *map(str, query.values())}, key=len, reverse=True):
            text = re.sub(rf"\b{re.escape(echo)}\b", "", text)
    for echo in map(str, query.values()):  # a filter that was asked for stands in its form again
        text = text.replace(f'value="{echo}"', "")
    return answer.status_code, text


@pytest.mark.parametrize("url", DATABASES, indirect=True)
def test_a_member_is_shown_nothing_of_others(sign_in: SignIn, world: World) -> None:
    """Whatever page it opens, no byte of it holds another client's name, credit, money or responses, nor a key."""
    browser = sign_in("member")
    secrets = [secret for secret in world.secrets if secret != "label of"]  # its own key's label is on every page
    secrets += [f"label of {role}" for role in ROLES if role != "member"]
    secrets += [_shown(secret) for secret in world.secrets if secret.isdecimal() and len(secret) > 5]
    asked, shown = 0, set()
    for path, query in member_pages():
        status, text = told(path, query, browser)
        assert [] == [secret for secret in secrets if secret in text], (path, query, status)
        assert status < 500, (path, query)
        asked += 1
        shown |= {path} if status == 200 else set()

    assert asked > 150
    assert len(shown) >= 12, f"so little was shown that little can have leaked: {shown}"


def test_the_same_pages_show_an_operator_everybody(sign_in: SignIn, world: World) -> None:
    """What is looked for in a member's pages is there to be found: an operator's are full of it."""
    browser = sign_in("operator")
    text = "".join(told(path, query, browser)[1] for path, query in member_pages() if not query)

    wanted = [secret for secret in world.secrets if not secret.isdecimal()]
    wanted += [_shown(secret) for secret in world.secrets if secret in ("2765413", "2999983", "1699963")]
    hidden = [secret for secret in wanted if secret not in text]
    assert len(hidden) < len(wanted) / 2, hidden


def test_what_is_another_s_is_to_a_member_as_what_is_not_there(sign_in: SignIn) -> None:
    """Asked for another's page, the answer is word for word that for a name nobody has."""
    browser = sign_in("member")
    for path in ("/clients/{client}", "/responses/{response_id}", "/statements/first/{client}.json"):
        pages = []
        for names in (FOREIGN, NOBODY):
            answer = browser.get("/console" + filled(path, names))
            text = answer.text
            for name in (names["response_id"], names["client"]):
                text = text.replace(name, "…")
            text = re.sub(r"Request <code>[^<]+", "", text)
            pages.append((answer.status_code, re.sub(r'(sec|minute)s? ago|datetime="[^"]*"', "", text)))
        assert pages[0] == pages[1], path
        assert 404 == pages[0][0]


def test_the_rules_of_a_path_are_those_of_its_first_line() -> None:
    """A longer path does not open what a shorter one closes, and the other way round."""
    assert "member" not in (roles_for("GET", "/periods/preview") or ())
    assert "member" in (roles_for("GET", "/periods/2026-11") or ())
    assert None is roles_for("GET", "")
    assert None is roles_for("GET", "/sign-in/more")
    assert None is roles_for("POST", "/")


@pytest.mark.parametrize(
    ("page", "call"),
    [
        (("GET", "/periods/preview"), ("POST", "/api/v1/periods/2026-11/preview")),
        (("POST", "/periods/2026-11/close"), ("POST", "/api/v1/periods/2026-11/close")),
        (("GET", "/periods/2026-11"), ("GET", "/api/v1/periods/2026-11")),
        (("GET", "/holds"), ("GET", "/api/v1/holds")),
        (("POST", "/holds"), ("POST", "/api/v1/holds")),
        (("POST", "/responses/r1/reversal"), ("POST", "/api/v1/receipts/r1/reversal")),
    ],
)
def test_both_doors_are_open_to_the_same_roles(page: tuple[str, str], call: tuple[str, str]) -> None:
    """What a page of the console shows or does, the API tells or does for the same roles, and for no others."""
    assert set(roles_for(*page) or ()) == set(permissions.roles_for(*call) or ())


def _shown(micro: str) -> str:
    """A credit as pages write it."""
    whole, rest = divmod(int(micro), 1_000_000)
    return f"{whole:,}.{rest:06d}".rstrip("0")
