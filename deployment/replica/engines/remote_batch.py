"""The rows of a worker, each the stream of an engine elsewhere: tokens as they come, one for a row and step.

Stands where `attribution.decoding.decode.Batch` does. Needs no torch to decode with: what the rows say is put together
from token ids. Knows no HTTP.
"""

from collections.abc import Sequence
from functools import partial
from queue import Empty, SimpleQueue

from attribution.decoding.prompt_limits import require_fit
from attribution.decoding.row import Row
from attribution.decoding.taps import DecodedModel
from attribution.records import Generation, Sampling, Step
from deployment.replica.engines.completions_protocol import completion_request
from deployment.replica.engines.connection import Arrival, Connection
from deployment.replica.engines.engine_response import EngineRequest

WAIT_S = 0.01
"""How long a step waits for a token: whoever joins or leaves meanwhile waits no longer."""


class RemoteBatch:
    """A `Decoder` whose rows are an engine's answers; one thread owns it.

    Args:
        model: what the bundle has of it: tokenizer, context, tokens that end a response.
        connection: the engine.
        name: of the model, by which the engine serves it.
    """

    def __init__(self, model: DecodedModel, connection: Connection, name: str) -> None:
        self._model = model
        self._connection = connection
        self._name = name
        self._vocabulary = model.layers.lm_head.out_features
        self._requests: dict[str, EngineRequest] = {}
        self._arrivals: SimpleQueue[tuple[EngineRequest, Arrival]] = SimpleQueue()
        self._failures: dict[str, Exception] = {}

    def __len__(self) -> int:
        """Rows that still want tokens."""
        return sum(not request.row.gone for request in self._requests.values())

    @property
    def is_reading(self) -> bool:
        """Never: an engine reads prompts in its own time."""
        return False

    def check(self, prompt_ids: Sequence[int], sampling: Sampling) -> None:
        """Refuse what could not join; may be called from any thread.

        Raises:
            PromptError: as `require_fit` says.
        """
        require_fit(self._model, prompt_ids, sampling)

    def join(self, key: str, prompt_ids: Sequence[int], sampling: Sampling) -> None:
        """Ask the engine; the first token comes when it does.

        Raises:
            PromptError: it could not join, as `check` says.
        """
        self.check(prompt_ids, sampling)
        assert key not in self._requests, f"row {key!r} has joined already"
        row = Row(key, prompt_ids, sampling, self._model.backend_tokenizer)
        request = EngineRequest(row, self._model.end_token_ids, self._vocabulary)
        body = completion_request(self._name, prompt_ids, sampling)
        request.stream = self._connection.begin(body, partial(self._note, request), key)
        self._requests[key] = request

    def step(self) -> list[Step]:
        """At most one token for each row; where none is there yet, what comes within `WAIT_S`."""
        if not self._requests:
            return []
        self._take_arrivals(0 if any(request.is_ready for request in self._requests.values()) else WAIT_S)
        steps = []
        for key, request in self._requests.items():
            if request.is_ready:
                try:
                    steps.append(request.advance())
                except Exception as error:  # noqa: BLE001 - whatever it is, it is this row's
                    self._fail(key, request, error)
        return steps

    def take_failures(self) -> dict[str, Exception]:
        """Why rows failed that had not left, by key, each told once; what they had can be had by `leave`."""
        failures, self._failures = self._failures, {}
        return failures

    def leave(self, key: str) -> Generation:
        """Take a row out, whether or not it has ended; the engine is told to stop.

        Raises:
            Exception: what the row failed of, where `take_failures` has not told it.
        """
        request = self._requests.pop(key)
        request.let_go()
        if key in self._failures:
            raise self._failures.pop(key)
        return request.row.generation()

    def _note(self, request: EngineRequest, arrival: Arrival) -> None:
        self._arrivals.put((request, arrival))

    def _take_arrivals(self, wait_s: float) -> None:
        try:
            request, arrival = self._arrivals.get(timeout=wait_s) if wait_s else self._arrivals.get_nowait()
            while True:
                request.take(arrival)
                request, arrival = self._arrivals.get_nowait()
        except Empty:
            return

    def _fail(self, key: str, request: EngineRequest, error: Exception) -> None:
        request.row.gone = True
        request.let_go()
        self._failures[key] = error
