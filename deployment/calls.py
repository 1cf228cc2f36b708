"""The audit of privileged calls: who called which part of /api/v1 or the console, and with what outcome, as events.

Written before the caller sees the answer. Holds the path as it was asked for, but no query, no body and no key.
"""

import asyncio
import logging
import re
from typing import Final
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rewards import Key, LedgerError, events
from rewards.database import Database

__all__ = ["KIND", "Calls"]

KIND: Final = "call"
CLIENT_LEFT: Final = 499  # as nginx has it: the caller went away before there was a status
FAILED: Final = 500

_LOG = logging.getLogger(__name__)
_KEY = re.compile(r"ptk_[0-9a-f]{12}_[A-Za-z0-9_-]*")
_PATH_LENGTH = 300
_METHOD_LENGTH = 20


class Calls:
    """The book of calls in a ledger's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def watch(self, app: ASGIApp, key: Key, scope: Scope, receive: Receive, send: Send) -> None:
        """Let `app` answer, and write down that `key` called and what status it got.

        The book never changes the answer: where it cannot be written, that is logged.
        """
        is_written = False

        async def watched(message: Message) -> None:
            nonlocal is_written
            if message["type"].endswith(".response.start") and not is_written:
                is_written = True
                await self.write(key, scope, message["status"])
            await send(message)

        status = FAILED
        try:
            await app(scope, receive, watched)
        except asyncio.CancelledError:
            status = CLIENT_LEFT
            raise
        finally:
            if not is_written:
                await self.write(key, scope, status)

    async def write(self, key: Key, scope: Scope, status: int) -> None:
        """Write down one call and its outcome, for somebody who has no app to watch."""
        await asyncio.to_thread(self._record, key, scope.get("method", "WEBSOCKET"), scope["path"], status)

    def _record(self, key: Key, method: str, path: str, status: int) -> None:
        document = {"method": method[:_METHOD_LENGTH], "status": status, "role": key.role}
        try:
            with self._database.write() as connection:
                events.record(connection, KIND, _shown(path), key.key_id, document)
        except LedgerError as error:
            _LOG.error("call not recorded: key %s, %s, status %d: %s", key.key_id, _shown(path), status, error)


def _shown(path: str) -> str:
    """A path as the book holds it: any database takes it, it is not endless, and a key in it is not readable."""
    return quote(_KEY.sub("ptk_...", path)[:_PATH_LENGTH], safe="/:@!$&'()*+,;=~", errors="replace")
