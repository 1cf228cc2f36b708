"""The OpenAPI document: what it says of every route."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel


@pytest.fixture
def openapi(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def operations(openapi: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """(method, path) -> operation; at least those that have always been there."""
    found = {(method, path): each for path, item in openapi["paths"].items() for method, each in item.items()}
    assert len(found) >= 9, "no routes were seen"
    return found


def models(base: type[BaseModel] = BaseModel) -> Iterator[type[BaseModel]]:
    """Every model of `deployment.schemas` that an example was written for."""
    for model in base.__subclasses__():
        if model.__module__.startswith("deployment.schemas") and "examples" in (
            model.model_config.get("json_schema_extra") or {}
        ):
            yield model
        yield from models(model)


def test_the_service_is_introduced(openapi: dict[str, Any]) -> None:
    """The document has a title, a version, a description, and says what each tag that a route bears means."""
    assert "protoken" == openapi["info"]["title"]
    assert openapi["info"]["version"]
    assert "bearer key" in openapi["info"]["description"]
    told = {tag["name"] for tag in openapi["tags"] if tag["description"]}
    for call, operation in operations(openapi).items():
        assert 1 == len(operation["tags"]), call
        assert set(operation["tags"]) <= told, call


def test_every_call_but_health_wants_a_bearer_key(openapi: dict[str, Any]) -> None:
    """The one scheme is HTTP bearer; 401 and 403 are declared wherever it is asked for."""
    assert {"bearer": ("http", "bearer")} == {
        name: (scheme["type"], scheme["scheme"]) for name, scheme in openapi["components"]["securitySchemes"].items()
    }
    for call, operation in operations(openapi).items():
        is_open = call == ("get", "/health")
        assert ([] if is_open else [{"bearer": []}]) == operation["security"], call
        assert is_open or {"401", "403", "503"} <= operation["responses"].keys(), call


def test_every_refusal_has_the_shape_of_openai(openapi: dict[str, Any]) -> None:
    """Each declared refusal is an `ErrorBody`; a bad parameter or body is 400, and FastAPI's own 422 is nowhere."""
    for call, operation in operations(openapi).items():
        takes = "requestBody" in operation or operation.get("parameters")
        assert not takes or "400" in operation["responses"], call
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                schema = answer["content"]["application/json"]["schema"]
                assert {"$ref": "#/components/schemas/ErrorBody"} == schema, (call, status)
    assert "ValidationError" not in str(openapi)
    assert {"message", "type", "param", "code"} == openapi["components"]["schemas"]["ErrorDetail"]["properties"].keys()


def test_every_part_of_the_operator_api_is_explained(openapi: dict[str, Any]) -> None:
    """Each call has a summary and a description, each parameter a description, each success a described body."""
    for call, operation in operations(openapi).items():
        if not call[1].startswith("/api/v1/"):
            continue
        assert operation["summary"] and operation["description"], call
        for parameter in operation.get("parameters", ()):
            assert parameter.get("description") or parameter["in"] == "path", (call, parameter["name"])
        successes = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
        assert successes, call
        for answer in successes:
            assert answer["content"], call
            for content in answer["content"].values():
                for schema in content["schema"].get("anyOf", [content["schema"]]):
                    assert "$ref" in schema or schema["type"] in ("string", "object"), call


def test_examples_are_what_they_are_examples_of() -> None:
    """Each example in the document is valid in strict mode, and has every field."""
    found = list(models())
    assert len(found) >= 9, "no examples were seen"
    for model in found:
        extra = model.model_config["json_schema_extra"]
        assert isinstance(extra, dict)
        for example in extra["examples"]:  # type: ignore[union-attr]
            assert example == model.model_validate_json(json.dumps(example)).model_dump(mode="json"), model


def test_no_number_in_it_is_one_that_a_reader_rounds(openapi: dict[str, Any]) -> None:
    """Bounds too are numbers in JSON: none is beyond 2^53, where doubles lose integers."""
    too_large = [number for number in numbers_in(openapi) if abs(number) >= 2**53]

    assert [] == too_large


def numbers_in(document: Any) -> Iterator[float]:
    """Every number of a JSON document."""
    if isinstance(document, dict | list):
        for value in document.values() if isinstance(document, dict) else document:
            yield from numbers_in(value)
    elif isinstance(document, int | float):
        yield document
