"""No reader of JSON loses a digit: what may exceed 2^53 is decimal text, and all else is bounded (RFC 7493, 2.2)."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from deployment.cli.output import print_json
from deployment.schemas.fields import LARGEST, Whole, spell
from deployment.schemas.statements import Statement
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from tests.deployment.api.world import receipt

WIDE = 20_000_000_000
"""Tokens, of which the micro-credits are more than 2^53."""
ANY_WHOLE = st.one_of(st.integers(), st.integers(2**53 - 2, 2**53 + 2), st.integers(-(2**64), 2**64))


def as_doubles(text: str | bytes) -> Any:
    """JSON as a browser reads it: every number is a double."""
    return json.loads(text, parse_int=float)


def integers_in(schema: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every part of a schema that says "integer", and where it stands; examples are no schemas."""
    if isinstance(schema, dict):
        if schema.get("type") == "integer":
            yield path, schema
        for name, part in schema.items():
            if name not in {"examples", "example", "default"}:
                yield from integers_in(part, f"{path}/{name}")
    elif isinstance(schema, list):
        for place, part in enumerate(schema):
            yield from integers_in(part, f"{path}/{place}")


def test_the_document_names_no_integer_that_a_double_cannot_hold(app: FastAPI) -> None:
    """But for `seed`, which OpenAI's format fixes as 64 bits and which only comes in."""
    found = dict(integers_in(app.openapi()))
    wide = {
        path
        for path, part in found.items()
        if not -LARGEST <= part.get("minimum", -(2**99)) <= part.get("maximum", 2**99) <= LARGEST
    }

    assert len(found) >= 60, "the walk has gone blind"
    assert {path.rsplit("/properties/")[-1].partition("/")[0] for path in wide} == {"seed"}


def test_the_walk_sees_an_integer_without_bounds() -> None:
    """A model that tells one is caught."""

    class Careless(BaseModel):
        tokens: int | None

    (found,) = integers_in(Careless.model_json_schema())
    assert "maximum" not in found[1]


def made_of(schema: Mapping[str, Any], whole: int, definitions: Mapping[str, Any]) -> Any:
    """A value of a schema whose numbers that may be large are this one, and all others as large as they may be."""
    if "$ref" in schema:
        return made_of(definitions[schema["$ref"].rsplit("/", 1)[1]], whole, definitions)
    if "anyOf" in schema:
        return made_of(schema["anyOf"][0], whole, definitions)
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    kind = schema.get("type")
    if kind == "object" and "properties" in schema:
        return {name: made_of(part, whole, definitions) for name, part in schema["properties"].items()}
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return {"bank": made_of(schema["additionalProperties"], whole, definitions)}
    if kind == "object":
        return {"settlement": {"tokens": whole, "lines": [{"payout": -whole}]}, "flag": True, "gain": 0.5}
    if kind == "array":
        return [made_of(schema["items"], whole, definitions)]
    simple: dict[Any, Any] = {"integer": schema.get("maximum"), "number": 0.5, "boolean": True}
    patterns: dict[Any, Any] = {"^(0|-?[1-9][0-9]*)$": whole, "^[0-9a-f]{64}$": "ab" * 32}
    return patterns.get(schema.get("pattern"), simple.get(kind, "text"))


def same(sent: Any, read: Any) -> bool:
    """Whether what was read by doubles says what was sent, digit by digit."""
    if isinstance(sent, dict):
        return set(sent) == set(read) and all(same(value, read[name]) for name, value in sent.items())
    if isinstance(sent, list):
        return len(sent) == len(read) and all(map(same, sent, read))
    return sent == int(read) if type(sent) is int else sent == read


def routes_of(router: Any) -> Iterator[APIRoute]:
    """The routes of a router and of those that are included in it."""
    for route in router.routes:
        if isinstance(route, APIRoute):
            yield route
        elif hasattr(route, "original_router"):
            yield from routes_of(route.original_router)


@pytest.fixture
def models(app: FastAPI) -> dict[str, Any]:
    """What each route answers with, by its path."""
    found = {f"{min(route.methods)} {route.path}": route.response_model for route in routes_of(app.router)}
    return {path: model for path, model in found.items() if model is not None} | {"statement": Statement}


@pytest.mark.long
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(whole=ANY_WHOLE)
def test_every_answer_reads_back_by_doubles(models: dict[str, Any], whole: int) -> None:
    """Whatever a route answers, a parser of doubles reads each number of it as it was."""
    assert len(models) >= 30
    for path, model in models.items():
        adapter = TypeAdapter(model)
        schema = adapter.json_schema(mode="serialization")
        sent = made_of(schema, whole, schema.get("$defs", {}))
        answer = adapter.dump_json(adapter.validate_python(sent), by_alias=True)

        assert same(sent, as_doubles(answer)), path


@given(ANY_WHOLE)
def test_a_whole_number_comes_as_text_or_as_a_number(whole: int) -> None:
    """Both are the same number, which leaves as text."""
    adapter: TypeAdapter[int] = TypeAdapter(Whole)

    assert whole == adapter.validate_python(whole) == adapter.validate_python(str(whole))
    assert json.dumps(str(whole)).encode() == adapter.dump_json(whole)


@pytest.mark.parametrize("text", ["", "1.0", "01", "-0", "+1", " 1", "1e3", "0x1", "٣", "1_000", "1\n", "9" * 5000])
def test_another_spelling_is_refused(text: str) -> None:
    """One number has one text."""
    with pytest.raises(ValidationError):
        TypeAdapter(Whole).validate_python(text)


@pytest.mark.long
@given(
    st.recursive(ANY_WHOLE | st.booleans() | st.text(), lambda part: st.lists(part) | st.dictionaries(st.text(), part))
)
def test_a_free_document_is_spelt_so_that_doubles_keep_it(document: Any) -> None:
    """What fits stays a number; what does not is text."""
    assert same(document, as_doubles(json.dumps(spell(document))))


def test_a_huge_receipt_is_told_exactly_everywhere(
    operator: TestClient, books: Ledger, app: FastAPI, keys: KeyRing
) -> None:
    """Receipts, entries, credit, shares, clients, exports, proofs' openings and the application's own attribution."""
    secret = keys.create("application", "shop", actor="test")
    bank, clinic = WIDE * 500_000 + 1, WIDE * 500_000 - 1
    assert bank > 2**53
    books.append(receipt("wide", secret.split("_")[1], {"bank": bank, "clinic": clinic, "commons": 0}))

    def told(path: str) -> Any:
        answer = operator.get(f"/api/v1/{path}")
        assert 200 == answer.status_code, answer.text
        return as_doubles(answer.text)

    assert {str(bank)} == {
        told("receipts/wide")["amounts"]["bank"],
        told("receipts?application=" + secret.split("_")[1])["data"][0]["amounts"]["bank"],
        next(row["credit"] for row in told("entries?client=bank&limit=1000")["data"] if row["response_id"] == "wide"),
    }
    assert str(WIDE) == told("receipts/wide")["tokens"]
    balances, tokens = books.balances(), books.tokens()
    assert {account: str(amount) for account, amount in balances.items()} == told("credit")["balances"]
    assert str(tokens) == told("credit")["tokens"] == told("shares")["tokens"] == told("consortium")["tokens"]
    assert str(balances["bank"]) == told("clients/bank")["credit"]
    assert str(balances["bank"]) in {each["credit"] for each in told("shares")["accounts"]}
    lines = operator.get("/api/v1/exports/receipts.jsonl").text.splitlines()
    assert str(bank) == as_doubles(lines[-1])["data"]["amounts"]["bank"]
    with TestClient(app, headers={"Authorization": f"Bearer {secret}"}) as application:
        own = as_doubles(application.get("/v1/attributions/wide").text)
    assert (str(WIDE), str(bank)) == (own["tokens"], own["credit"]["bank"])


def test_the_command_line_s_json_is_as_safe(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a command prints, a number that a double cannot hold is text."""
    print_json({"sum": 2**53, "list": [-(2**60), 5, True, None, "x"]})

    assert {"sum": str(2**53), "list": [str(-(2**60)), 5, True, None, "x"]} == as_doubles(capsys.readouterr().out)
