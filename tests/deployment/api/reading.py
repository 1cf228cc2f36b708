"""How tests read lists: page by page, or whole."""

from collections.abc import Mapping
from typing import Any

from fastapi.testclient import TestClient

DATABASES = ("sqlite", "postgresql")


def read(caller: TestClient, path: str, **query: Any) -> Any:
    """The body of a successful GET under /api/v1."""
    response = caller.get(f"/api/v1/{path}", params={name: value for name, value in query.items() if value is not None})
    assert 200 == response.status_code, response.text
    return response.json()


def numbers(amounts: Mapping[str, str]) -> dict[str, int]:
    """Amounts that came as decimal text, by name, as numbers; each of them has to be text."""
    assert {str} >= set(map(type, amounts.values())), amounts
    return {name: int(text) for name, text in amounts.items()}


def rows(caller: TestClient, path: str, limit: int = 1000, **query: Any) -> list[Mapping[str, Any]]:
    """Every row of a list, read in pages of `limit`, each of them full but the last."""
    found: list[Mapping[str, Any]] = []
    cursor = None
    while True:
        page = read(caller, path, limit=limit, cursor=cursor, **query)
        assert "list" == page["object"]
        assert len(page["data"]) == limit or (page["next_cursor"] is None and len(page["data"]) <= limit)
        found += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found
