"""Runs the migrations over the connection that `rewards.store.schema` hands in. Knows no URL and opens nothing."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
