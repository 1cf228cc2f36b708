"""Whatever is raised within one row, wherever: that row ends, and the others say what they say alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from attribution.decoding import decode
from attribution.decoding.decode import Batch
from attribution.decoding.row import Row
from attribution.decoding.rows_cache import RowsLayer
from attribution.decoding.sampling import Draw
from attribution.model import FederatedModel
from deployment.replica.booking import credit_recorder
from deployment.replica.messages import ChatMessage, Failed, Finished
from deployment.replica.worker import Worker
from rewards.ledger.ledger import Ledger
from tests.deployment.replica.test_worker import CREDIT, Caller, MovingLedger, Notes, SmallDisk, job, working
from tests.waiting import until

BAD = "bad"
ALONE = {"one": "a prompt of one", "two": "another's"}
TOKENS = 24  # past the sixteenth, so that progress is spooled
EXCEPTIONS: list[BaseException] = [
    ValueError("x"),
    RuntimeError("x"),
    MemoryError("x"),
    torch.OutOfMemoryError("x"),
    KeyError("x"),
    RecursionError("x"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
]
Fault = Callable[[pytest.MonkeyPatch, BaseException], dict[str, Any]]


def _raising_for_row(patch: pytest.MonkeyPatch, error: BaseException, name: str, after: int = 0) -> None:
    """Let a method of the bad row raise, once it has so many tokens."""
    original = getattr(Row, name)

    def method(row: Row, *arguments: Any) -> Any:
        if row.key == BAD and len(row.token_ids) >= after:
            raise error
        return original(row, *arguments)

    patch.setattr(Row, name, method)


def choose(patch: pytest.MonkeyPatch, error: BaseException) -> dict[str, Any]:
    """A token cannot be chosen, whenever the row is there, alone or with others."""
    original = decode.choose_tokens

    def choose_tokens(logits: Any, draws: Any) -> Any:
        if any(isinstance(draw, BadDraw) for draw in draws):
            raise error
        return original(logits, draws)

    patch.setattr(decode, "choose_tokens", choose_tokens)
    patch.setattr(Row, "draw", property(_draw_of))
    return {}


class BadDraw(Draw):
    """What the bad row brings to its choice, once it has five tokens."""


def _draw_of(row: Row) -> Draw:
    kind = BadDraw if row.key == BAD and len(row.token_ids) >= 5 else Draw
    return kind(row.sampling, 0.5, {})


def emit(patch: pytest.MonkeyPatch, error: BaseException) -> dict[str, Any]:
    """A token cannot be decoded to text, as tokenizers' decoders do now and then."""
    _raising_for_row(patch, error, "emit", after=5)
    return {}


def leave(patch: pytest.MonkeyPatch, error: BaseException) -> dict[str, Any]:
    """What a row had captured cannot be put together."""
    _raising_for_row(patch, error, "generation")
    return {}


def fall_and_leave(patch: pytest.MonkeyPatch, error: BaseException) -> dict[str, Any]:
    """Neither can a token be chosen, nor what there is be put together."""
    return choose(patch, error) | leave(patch, error)


def join(patch: pytest.MonkeyPatch, error: BaseException) -> dict[str, Any]:
    """The row cannot be made."""
    original = decode.Row

    def made(key: str, *arguments: Any) -> Row:
        if key == BAD:
            raise error
        return original(key, *arguments)

    patch.setattr(decode, "Row", made)
    return {}


def step(patch: pytest.MonkeyPatch, error: BaseException) -> dict[str, Any]:
    """The forward pass fails in the middle of the network whenever the row is in it, alone or with others."""

    class Falling(Batch):
        def _feed(self, parts: Any) -> Any:
            bad = any(row.key == BAD and len(row.token_ids) >= 5 for row, _ in parts)
            hook = self._model.layers.last_block.register_forward_pre_hook(partial(_raise, error)) if bad else None
            try:
                return super()._feed(parts)
            finally:
                if hook is not None:
                    hook.remove()

    return {"batch": Falling}


def prompt(patch: pytest.MonkeyPatch, error: BaseException) -> dict[str, Any]:
    """The prompt's forward pass fails, alone or with others'."""

    class Falling(Batch):
        def _feed(self, parts: Any) -> Any:
            if any(row.key == BAD and row.unfed for row, _ in parts):
                raise error
            return super()._feed(parts)

    return {"batch": Falling}


def merge(patch: pytest.MonkeyPatch, error: BaseException) -> dict[str, Any]:
    """There is no room for its cache: the third layer cannot grow for it."""
    original, calls = RowsLayer.fit, [0]

    class Falling(Batch):
        def _feed(self, parts: Any) -> Any:
            if any(row.key == BAD and row.unfed for row, _ in parts):
                calls[0] = 3
            return super()._feed(parts)

    def fit(*arguments: Any) -> None:
        calls[0] -= 1
        if calls[0] == 0:
            raise error
        original(*arguments)

    patch.setattr(RowsLayer, "fit", fit)
    return {"batch": Falling}


def attribute(patch: pytest.MonkeyPatch, error: BaseException) -> dict[str, Any]:
    """The response cannot be attributed."""

    def attributed(model: Any, generation: Any, **options: Any) -> Any:
        if _is_bad(model, generation):
            raise error
        return CREDIT(model, generation, **options)

    return {"attribute": attributed}


def receipt(patch: pytest.MonkeyPatch, error: BaseException) -> dict[str, Any]:
    """Its receipt cannot be made."""
    return _failing_for(patch, credit_recorder, "receipt_of", error)


def summary(patch: pytest.MonkeyPatch, error: BaseException) -> dict[str, Any]:
    """What is told of it cannot be made."""
    original = credit_recorder.summary_of

    def made(response: Any, receipt: Any) -> Any:
        if receipt.response_id == BAD:
            raise error
        return original(response, receipt)

    patch.setattr(credit_recorder, "summary_of", made)
    return {}


def progress(patch: pytest.MonkeyPatch, error: BaseException) -> dict[str, Any]:
    """Its progress cannot be written."""
    original = credit_recorder.CreditRecorder.record

    def record(self: Any, rows: Any) -> None:
        if any(row.job.response_id == BAD for row in rows):
            raise error
        original(self, rows)

    patch.setattr(credit_recorder.CreditRecorder, "record", record)
    return {}


PLACES: list[Fault] = [
    choose,
    emit,
    leave,
    fall_and_leave,
    join,
    step,
    prompt,
    merge,
    attribute,
    receipt,
    summary,
    progress,
]


def _raise(error: BaseException, *_: Any) -> None:
    raise error


def _is_bad(model: FederatedModel, generation: Any) -> bool:
    return BAD in model.tokenizer.decode(generation.prompt_token_ids)


def _failing_for(patch: pytest.MonkeyPatch, module: Any, name: str, error: BaseException) -> dict[str, Any]:
    original = getattr(module, name)

    def function(asked: Any, *arguments: Any, **options: Any) -> Any:
        if asked.response_id == BAD:
            raise error
        return original(asked, *arguments, **options)

    patch.setattr(module, name, function)
    return {}


@pytest.fixture(scope="module")
def alone(model: FederatedModel) -> dict[str, tuple[int, ...]]:
    """The tokens of the other rows when nothing fails."""
    found = {}
    for name, text in ALONE.items():
        batch = Batch(model)
        batch.join(name, model.encode_text(text), _sampling())
        while len(batch):
            batch.step()
        found[name] = batch.leave(name).token_ids
    return found


def _sampling() -> Any:
    return decode.Sampling(TOKENS)


class Served:
    """A worker, its books, and the tokens of every response as its batch gave them."""

    def __init__(self, worker: Worker, ledger: Ledger, spool: SmallDisk, tokens: dict[str, list[int]]) -> None:
        self.worker, self.ledger, self.spool, self.tokens = worker, ledger, spool, tokens

    def ask(self, name: str, prompt_: Any, **changes: Any) -> Caller:
        """A stream."""
        return Caller(self.worker, job(name, prompt_, TOKENS, streamed=True, **changes), self.ledger, look=False)


@contextmanager
def served(model: FederatedModel, ledger: Ledger, spool: SmallDisk, options: dict[str, Any]) -> Iterator[Served]:
    """A worker with a fault in it."""
    tokens: dict[str, list[int]] = {}

    class Counting(options.pop("batch", Batch)):  # type: ignore[misc]
        def step(self) -> Any:
            steps = super().step()
            for each in steps:
                tokens.setdefault(each.key, []).append(each.token_id)
            return steps

    with working(model, ledger, spool, Notes(), batch=Counting(model), **options) as worker:
        yield Served(worker, ledger, spool, tokens)


def _assert_unharmed(running: Served, alone: dict[str, tuple[int, ...]], others: dict[str, Caller]) -> None:
    ends = {name: caller.end() for name, caller in others.items()}
    assert dict.fromkeys(alone, Finished) == {name: type(end) for name, end in ends.items()}
    assert alone == {name: tuple(running.tokens[name]) for name in alone}
    assert running.worker.alive
    assert isinstance(running.ask("after", "and on it goes").end(), Finished)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", EXCEPTIONS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a_failure_within_a_row_ends_that_row(
    model: FederatedModel,
    ledger: MovingLedger,
    tmp_path: Path,
    alone: dict[str, tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
    place: Fault,
    error: BaseException,
) -> None:
    """It is told 500, and not to try again; what it had delivered is booked; the others have their own tokens."""
    options = place(monkeypatch, error)
    with served(model, ledger, SmallDisk(tmp_path / "spool"), options) as running:
        others = {"one": running.ask("one", ALONE["one"])}
        bad = running.ask(BAD, "a bad one")
        others["two"] = running.ask("two", ALONE["two"])
        end = bad.end()
        _assert_unharmed(running, alone, others)
        until(lambda: not running.spool.live_records())

    assert isinstance(end, Failed)
    assert (500, "false") == (end.status, end.error().headers["x-should-retry"])
    booked = ledger.receipt(BAD)
    delivered = len(bad.deltas)
    assert bool(delivered) == (booked is not None) == end.credited
    if booked is not None:
        assert delivered <= booked.tokens <= TOKENS
        assert booked.tokens * 1_000_000 == sum(booked.amounts.values())
    assert {"one", "two"} <= {row.response_id for row in ledger.receipts_after(0)}


@pytest.mark.parametrize("error", EXCEPTIONS, ids=lambda error: type(error).__name__)
def test_a_chat_template_may_raise_anything(
    model: FederatedModel,
    ledger: MovingLedger,
    tmp_path: Path,
    alone: dict[str, tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    """Messages that the template refuses are the request's fault, 400; without memory to read them it is 500."""

    def template(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(model.tokenizer, "apply_chat_template", template, raising=False)
    with served(model, ledger, SmallDisk(tmp_path / "spool"), {}) as running:
        others = {name: running.ask(name, text) for name, text in ALONE.items()}
        end = running.ask(BAD, (ChatMessage("user", "bad"),)).end()
        _assert_unharmed(running, alone, others)

    expected = 500 if isinstance(error, MemoryError | torch.OutOfMemoryError) else 400
    assert (expected, 0) == (end.status, sum(1 for row in ledger.receipts_after(0) if row.response_id == BAD))


@pytest.mark.parametrize("error", EXCEPTIONS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["spool", "bookings", "caller"])
def test_a_failure_of_the_books_or_of_a_caller_ends_nobody_else(
    model: FederatedModel,
    ledger: MovingLedger,
    tmp_path: Path,
    alone: dict[str, tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    error: BaseException,
) -> None:
    """A receipt that cannot be spooled is booked, one not handed over waits in the spool, a lost caller's is cut."""
    spool = SmallDisk(tmp_path / "spool")
    with served(model, ledger, spool, {}) as running:
        others = {name: running.ask(name, text) for name, text in ALONE.items()}
        if where == "caller":

            def take(_: Any) -> None:
                raise error

            running.worker.submit(job(BAD, "a bad one", TOKENS, streamed=True), take)
        else:
            _break_books(monkeypatch, running, where, error)
            assert isinstance(running.ask(BAD, "a bad one").end(), Finished)
        _assert_unharmed(running, alone, others)
        if where == "bookings":
            assert [BAD] == [record["id"] for record in spool.live_records() if record["kind"] == "receipt"]
        else:
            until(lambda: ledger.receipt(BAD))
        assert running.worker.alive


def _break_books(patch: pytest.MonkeyPatch, running: Served, where: str, error: BaseException) -> None:
    books = running.worker._recorder
    if where == "bookings":
        original = books._bookings.book

        def book(receipt_: Any, *arguments: Any, **options: Any) -> None:
            if receipt_.response_id == BAD:
                raise error
            original(receipt_, *arguments, **options)

        patch.setattr(books._bookings, "book", book)
        return
    append = running.spool.append

    def appended(records: Any) -> None:
        if any(record["id"] == BAD and record["kind"] == "receipt" for record in records):
            raise error
        append(records)

    patch.setattr(running.spool, "append", appended)


def test_logits_that_are_no_numbers_end_their_row(
    model: FederatedModel, ledger: MovingLedger, tmp_path: Path, alone: dict[str, tuple[int, ...]]
) -> None:
    """NaN in one row of the logits, greedy or sampled, is that row's; what it was given before is booked."""

    class Broken(Batch):
        def _feed(self, parts: Any) -> Any:
            logits = super()._feed(parts).clone()
            for index, row in enumerate(row for row, _ in parts):
                if row.key.startswith(BAD) and len(row.token_ids) >= 5:
                    logits[index] = float("nan" if row.key == BAD else "inf")
            return logits

    with served(model, ledger, SmallDisk(tmp_path / "spool"), {"batch": Broken}) as running:
        others = {name: running.ask(name, text) for name, text in ALONE.items()}
        bad = [running.ask(BAD, "a bad one"), running.ask("bad2", "a bad one", temperature=1.0, seed=1)]
        ends = [caller.end() for caller in bad]
        _assert_unharmed(running, alone, others)
        until(lambda: not running.spool.live_records())

    assert [(500, True)] * 2 == [(end.status, end.credited) for end in ends]
    assert [5, 5] == [ledger.receipt(name).tokens for name in (BAD, "bad2")]


@pytest.mark.parametrize(
    "settings",
    [
        {"top_p": 1e-46, "temperature": 1.0},
        {"top_p": 1e-320, "temperature": 2.0},
        {"top_p": 0.0, "temperature": 1.0},
        {"top_p": 1.0, "temperature": 0.01},
        {"top_p": 1e-46, "temperature": 0.01},
        {"top_p": 1.0, "temperature": 1e-320},
        {"top_p": 1.0, "temperature": 1e308},
        {"top_p": 1.0, "temperature": -0.0},
    ],
    ids=str,
)
def test_extreme_settings_end_nobody(
    model: FederatedModel,
    ledger: MovingLedger,
    tmp_path: Path,
    alone: dict[str, tuple[int, ...]],
    settings: dict[str, float],
) -> None:
    """Each is served, greedily where next to nothing is left to choose from, or refused by name as out of range."""
    with served(model, ledger, SmallDisk(tmp_path / "spool"), {}) as running:
        others = {"two": running.ask("two", ALONE["two"])}
        end = running.ask(BAD, ALONE["one"], seed=1, **settings).end()
        others["one"] = running.ask("one", ALONE["one"])
        _assert_unharmed(running, alone, others)

    if settings["temperature"] in {1e-320, 1e308}:
        assert (400, "temperature") == (end.status, end.param)
    elif 0.01 not in settings.values() or settings["top_p"] < 0.01:
        assert alone["one"] == tuple(running.tokens[BAD])
    else:
        assert isinstance(end, Finished)


def test_one_pass_that_fails_for_all_ends_nobody(
    model: FederatedModel, ledger: MovingLedger, tmp_path: Path, alone: dict[str, tuple[int, ...]]
) -> None:
    """A batch that has no memory for once, or has too little for all rows together, is decoded row by row."""

    class Scarce(Batch):
        together = 0

        def _feed(self, parts: Any) -> Any:
            if len(parts) > 1:
                self.together += 1
                hook = self._model.layers.last_block.register_forward_pre_hook(
                    partial(_raise, torch.OutOfMemoryError("CUDA out of memory"))
                )
                try:
                    return super()._feed(parts)
                finally:
                    hook.remove()
            return super()._feed(parts)

    scarce: list[Scarce] = []

    class Kept(Scarce):
        def __init__(self, model: Any) -> None:
            super().__init__(model)
            scarce.append(self)

    with served(model, ledger, SmallDisk(tmp_path / "spool"), {"batch": Kept}) as running:
        others = {name: running.ask(name, text) for name, text in ALONE.items()}
        _assert_unharmed(running, alone, others)
    assert scarce[0].together >= 10
