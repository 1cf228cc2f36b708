"""Fixtures: the databases of the books' own tests."""

from tests.rewards.conftest import postgresql_url, prepared_database, prepared_file, sqlite_url, url

__all__ = ["postgresql_url", "prepared_database", "prepared_file", "sqlite_url", "url"]
