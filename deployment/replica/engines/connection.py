"""An engine's HTTP, in an event loop of a thread of its own: streams begun and let go from any thread.

A request that was not begun to be answered is sent again, a few times; one that was is not. Knows the protocol's frame
(statuses, events, errors); what the chunks of an answer are worth others judge.
"""

import asyncio
import json
import logging
import os
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from http import HTTPStatus
from typing import Any, TypeVar

import aiohttp

from deployment.errors import StartError, log_text_of
from deployment.replica.engines.completions_protocol import DONE, Chunk, message_of, read_chunk
from deployment.replica.engines.errors import EngineError, away, breach
from deployment.replica.engines.event_reader import EventReader
from deployment.settings import ENVIRONMENT_PREFIX, EngineSettings

_LOG = logging.getLogger(__name__)
API_KEY = f"{ENVIRONMENT_PREFIX}ENGINE_API_KEY"
_Result = TypeVar("_Result")
PAUSES_S = (0.1, 0.5)
"""How long is waited before a request is sent again that was not begun to be answered; as often as there are pauses."""
CONNECT_S = 5.0
ENGINE_SILENCE_S = 120.0
"""How long an answer may be silent: behind others a prompt may wait for long, but an engine that hangs is let go."""
ANSWER_S = 10.0
"""How long a question about the engine may take."""
_MOST_OF_AN_ERROR = 1 << 16
_CLOSING_S = 5.0

Arrival = Chunk | EngineError | None
"""A piece of an answer; why there is no more of it; or None at its end."""
Tell = Callable[[Arrival], None]


class Stream:
    """An answer on its way. What comes is told from the connection's thread, the end or a failure last."""

    def __init__(self, answering: "Future[None]") -> None:
        self._answering = answering

    def cancel(self) -> None:
        """Let it go: the engine is disconnected, and nothing more is told soon. Nothing happens when it has ended."""
        self._answering.cancel()


class Connection:
    """One engine. Must be closed.

    Args:
        url: where it is, as in `http://127.0.0.1:8001`; what follows in `/v1/` is added.
        api_key: its bearer key, where it wants one.
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="protoken-engine", daemon=True)
        self._thread.start()
        self._session = self._call(self._open())

    @property
    def alive(self) -> bool:
        """Whether anything that is asked is sent."""
        return self._thread.is_alive()

    def begin(self, body: Mapping[str, Any], tell: Tell, request_id: str) -> Stream:
        """Ask for an answer; under that id the engine's log has it."""
        sent = json.dumps(body, separators=(",", ":")).encode()
        answering = asyncio.run_coroutine_threadsafe(self._answer(sent, tell, request_id), self._loop)
        return Stream(answering)

    def models(self) -> list[str]:
        """The names of the models that it serves; waits for the answer.

        Raises:
            EngineError: it does not answer, or not as it should.
        """
        return self._call(self._ask_for_models())

    def close(self) -> None:
        """Let every answer go, and end the thread."""
        if self._thread.is_alive():
            self._call(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CLOSING_S)
            self._loop.close()

    def _call(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        answer = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return answer.result(ANSWER_S + CONNECT_S)
        except TimeoutError:
            answer.cancel()
            raise away() from None

    async def _open(self) -> aiohttp.ClientSession:
        # as many connections as there are rows: an engine has its own queue
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=ENGINE_SILENCE_S),
            headers={**self._headers, "Accept-Encoding": "identity"},
        )

    async def _close(self) -> None:
        others = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._session.close()

    async def _answer(self, sent: bytes, tell: Tell, request_id: str) -> None:
        """One answer, from the first try that is answered at all."""
        for pause in (*PAUSES_S, None):
            try:
                await self._try(sent, tell, request_id)
            except EngineError as error:
                if pause is None or not error.may_pass:
                    tell(error)
                    return
            except Exception as error:  # noqa: BLE001 - of this answer, whatever it is
                _LOG.error("the engine's answer to %s cannot be read: %s", request_id, log_text_of(error))
                tell(breach(f"reading it fails with {type(error).__name__}"))
                return
            else:
                return
            await asyncio.sleep(pause)

    async def _try(self, sent: bytes, tell: Tell, request_id: str) -> None:
        headers = {"Content-Type": "application/json", "X-Request-Id": request_id}
        url, relay = f"{self._url}/v1/completions", _Relay(tell)
        try:
            async with self._session.post(url, data=sent, headers=headers, allow_redirects=False) as response:
                if response.status != HTTPStatus.OK:
                    raise await _refusal(response)
                if response.content_type != "text/event-stream":
                    raise breach(f"it is {response.content_type} and no stream of events")
                async for data in response.content.iter_any():
                    relay.feed(data)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            _LOG.warning("the engine broke off at %s: %s", request_id, type(error).__name__)
            relay.require_end("the engine broke off" if relay.begun else "the engine does not answer; try again")
        except ValueError as error:
            raise breach(str(error)) from error
        relay.require_end("the engine's answer has no end")

    async def _ask_for_models(self) -> list[str]:
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        try:
            async with self._session.get(f"{self._url}/v1/models", timeout=timeout, allow_redirects=False) as response:
                if response.status != HTTPStatus.OK:
                    raise await _refusal(response)
                body = await response.json()
                return [str(each["id"]) for each in body["data"]]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise away() from error
        except (ValueError, KeyError, TypeError) as error:
            raise breach("its list of models cannot be read") from error


def api_key_of(engine: EngineSettings) -> str | None:
    """The bearer key of an engine, from its file or from the environment; None where it wants none.

    Raises:
        StartError: its file cannot be read.
    """
    if engine.api_key_file is None:
        return os.environ.get(API_KEY)
    try:
        return engine.api_key_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"api_key_file {engine.api_key_file} cannot be read: {type(error).__name__}") from error


class _Relay:
    """What comes of an answer, to whoever listens; `begun` once anything has."""

    def __init__(self, tell: Tell) -> None:
        self.begun = False
        self._tell = tell
        self._events = EventReader()
        self._is_whole = False

    def feed(self, data: bytes) -> None:
        """Tell what these bytes make whole; behind the end nothing, which is read so that the connection serves again.

        Raises:
            EngineError: the engine says that there will be no more.
            ValueError: it cannot be read.
        """
        for event in self._events.feed(data):
            if self._is_whole:
                return
            self.begun = True
            if event == DONE:
                self._is_whole = True
                self._tell(None)
            else:
                self._tell(_chunk(event))

    def require_end(self, what: str) -> None:
        """Refuse an answer of which the end was not told; where nothing was, it may be asked for again."""
        if not self._is_whole:
            raise away(what, may_pass=not self.begun)


def _chunk(data: bytes) -> Chunk:
    told = read_chunk(data)
    if isinstance(told, str):
        _LOG.warning("the engine ends an answer: %s", told)
        raise away("the engine failed at this response", may_pass=False)
    return told


async def _refusal(response: aiohttp.ClientResponse) -> EngineError:
    """What an answer that is no success means for whoever asked."""
    said = await _reason_of(response)
    _LOG.warning("the engine answers %d: %s", response.status, said)
    after = response.headers.get("Retry-After", "")
    match response.status:
        case 429:
            wait = int(after) if after.isdecimal() else 1
            return EngineError("the engine is busy; try again", status=429, code="overloaded", retry_after_s=wait)
        case 503 if after.isdecimal():
            return EngineError("the engine is away; try again", retry_after_s=int(after))
        case 400 | 413 | 422:
            return EngineError(f"the engine refuses the request: {said}", status=400, code="engine_refused")
        case status if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
            return away()
        case _:  # a key that it does not take, a path or model that it does not have
            return away("the engine does not take the service's requests", may_pass=False)


async def _reason_of(response: aiohttp.ClientResponse) -> str:
    try:
        body = json.loads(await response.content.read(_MOST_OF_AN_ERROR))
    except ValueError:
        return "no reason is told"
    return message_of(body) if isinstance(body, dict) else "no reason is told"
