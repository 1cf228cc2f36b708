"""The audit of privileged calls: who called which part of /api/v1 or the console, and with what outcome, as events.

A call that its role may make is one event, written before the caller sees the answer. What anybody can do any number of
times is counted, refused calls above all, and a member's of what is another's or is not there: one event a minute for a
key and a route, however many there were, which nobody waits for. All of them are written by one thread, together, so
that they are one among those who wait to write in the ledger. Holds the path of an allowed call as it was asked for,
but no query, no body and no key.
"""

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rewards.errors import RewardsError
from rewards.files.strict_json import JsonObject
from rewards.keys import key_text
from rewards.keys.rules import Key
from rewards.store import events
from rewards.store.database import Database

KIND: Final = "call"
CLIENT_LEFT: Final = 499  # as nginx has it: the caller went away before there was a status
FAILED: Final = 500
_REFUSALS: Final = range(400, CLIENT_LEFT)
MINUTE_S: Final = 60.0

_LOG = logging.getLogger(__name__)
_PATH_LENGTH = 300
_METHOD_LENGTH = 20
_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "WEBSOCKET")


@dataclass
class _Event:
    """One event to write, and who waits until it is, or could not be."""

    subject: str
    actor: str
    document: JsonObject
    written: "Future[None]" = field(default_factory=Future)


@dataclass
class _CallCount:
    """Calls of one key to one route with one outcome, since the last event of them."""

    role: str
    due_at: float
    count: int = 0
    methods: Counter[str] = field(default_factory=Counter)


class Calls:
    """The book of calls in a ledger's database; usable from any thread. Must be closed.

    Args:
        database: where the events are.
        clock: seconds since 1970; what is counted in a minute of it is one event.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: list[_Event] = []
        self._counted: dict[tuple[str, str, int], _CallCount] = {}  # as many as there are keys, routes and outcomes
        self._thread: threading.Thread | None = None
        self._is_closing = False

    async def watch(
        self,
        app: ASGIApp,
        key: Key,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        route: str | None = None,
        refused_as: str | None = None,
    ) -> None:
        """Let `app` answer, and write down that `key` called and what status it got, or count it under its `route`.

        The book never changes the answer: where it cannot be written, that is logged.

        Args:
            app: answers.
            key: who calls.
            scope: of the call; as are `receive` and `send`.
            receive: see `scope`.
            send: see `scope`.
            route: count the call under this, whatever the answer.
            refused_as: count it under this where the answer is a refusal.
        """
        is_noted = False

        async def note(status: int) -> None:
            nonlocal is_noted
            is_noted = True
            counted_as = refused_as if route is None and status in _REFUSALS else route
            if counted_as is None:
                await self.write(key, scope, status)
            else:
                self.count(key, scope.get("method", "WEBSOCKET"), counted_as, status)

        async def send_and_note(message: Message) -> None:
            if message["type"].endswith(".response.start") and not is_noted:
                await note(message["status"])
            await send(message)

        status = FAILED
        try:
            await app(scope, receive, send_and_note)
        except asyncio.CancelledError:
            status = CLIENT_LEFT
            raise
        finally:
            if not is_noted:
                await note(status)

    async def write(self, key: Key, scope: Scope, status: int) -> None:
        """Write down one call and its outcome, for somebody who has no app to watch."""
        method = scope.get("method", "WEBSOCKET")[:_METHOD_LENGTH]
        event = _Event(
            _printable_path(scope["path"]), key.key_id, {"method": method, "status": status, "role": key.role}
        )
        with self._changed:
            self._waiting.append(event)
            self._wake()
        await asyncio.wrap_future(event.written)

    def count(self, key: Key, method: str, route: str, status: int) -> None:
        """Count a call that is no event of its own. Waits for nothing.

        Args:
            key: who called.
            method: with which method.
            route: which part of the service, as its rules name it and never as it was asked for.
            status: the outcome.
        """
        with self._changed:
            now = self._clock()
            counted = self._counted.get((key.key_id, route, status))
            if counted is None:
                counted = _CallCount(key.role, now - now % MINUTE_S + MINUTE_S)
                self._counted[key.key_id, route, status] = counted
            counted.count += 1
            counted.methods[method if method in _METHODS else "other"] += 1
            self._wake()

    def close(self) -> None:
        """Write what was counted, also in the minute that is not over yet."""
        with self._changed:
            self._is_closing = True
            if self._counted:
                self._wake()
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _wake(self) -> None:
        """Have a thread for what there is to write; it ends when there is no more. Under the lock."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="protoken-calls", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._is_due():
                    if not self._waiting and not self._counted:
                        self._thread = None
                        return
                    next_at = min(each.due_at for each in self._counted.values())
                    self._changed.wait(max(next_at - self._clock(), 0.05))
                waiting, self._waiting = self._waiting, []
                counted = self._take_due()
            is_written = self._write([*waiting, *(_event_of(each, of) for each, of in counted.items())])
            for event in waiting:
                event.written.set_result(None)
            if not is_written:
                self._put_back(counted)

    def _is_due(self) -> bool:
        now = self._clock()
        is_over = any(each.due_at <= now for each in self._counted.values())
        return bool(self._waiting) or is_over or (self._is_closing and bool(self._counted))

    def _take_due(self) -> dict[tuple[str, str, int], _CallCount]:
        now = self._clock()
        due = {each: of for each, of in self._counted.items() if of.due_at <= now or self._is_closing}
        for each in due:
            del self._counted[each]
        return due

    def _put_back(self, counted: dict[tuple[str, str, int], _CallCount]) -> None:
        """Count on from what could not be written, until the next minute ends; on closing it is lost, as was logged."""
        with self._changed:
            if self._is_closing:
                return
            for each, of in counted.items():
                later = self._counted.setdefault(each, _CallCount(of.role, self._clock() + MINUTE_S))
                later.count += of.count
                later.methods += of.methods

    def _write(self, due: list[_Event]) -> bool:
        """Write events in one transaction; whether that went well."""
        try:
            with self._database.write() as connection:
                for event in due:
                    events.record(connection, KIND, event.subject, event.actor, event.document)
        except RewardsError as error:
            for event in due:
                _LOG.error("call not recorded: key %s, %s, %s: %s", event.actor, event.subject, event.document, error)
            return False
        return True


def _event_of(counted: tuple[str, str, int], of: _CallCount) -> _Event:
    key_id, route, status = counted
    method = " ".join(sorted(of.methods))
    return _Event(route, key_id, {"method": method, "status": status, "role": of.role, "count": of.count})


def _printable_path(path: str) -> str:
    """A path as the book holds it: any database takes it, it is not endless, and a key in it is not readable."""
    return quote(key_text.blank(path)[:_PATH_LENGTH], safe="/:@!$&'()*+,;=~", errors="replace")
