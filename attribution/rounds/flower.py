"""The recorder for Flower: what each node sent, by member, is written as training runs.

One line in a server app:

    strategy = record_rounds(FedAvg(...), folder="rounds", consortium="hospitals", members="members.json")

It is for strategies of the message API, and made for Flower 1.42. What is averaged and what is recorded is the same:
a reply that cannot be credited to one member is kept from the strategy, too, and named in the round with the reason.
So nobody's work is in the model without being in the record, and one bad reply does not stop the others. What no
member can have caused, such as a strategy whose result is no weighted average of what was sent, is refused with an
error instead.

Updates are not copied: they go from Flower's messages to the disk before the strategy has them. Does not import
Flower; what it takes of it is in `flower_messages`.
"""

import json
import logging
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

from pydantic import ValidationError

from attribution.errors import RoundsError
from attribution.files.untrusted import first_problem, in_one_line, read_json_object
from attribution.rounds.documents import Federation, Member, Missing, RecordedUpdate
from attribution.rounds.flower_forms import Form, reply_form, require_form, usual_form
from attribution.rounds.flower_members import NodeDirectory, read_members
from attribution.rounds.flower_messages import (
    Arrays,
    Content,
    Grid,
    Message,
    Metadata,
    Strategy,
    read_update,
    record_tensors,
    say_recorded_round,
    weight_name,
)
from attribution.rounds.flower_strategies import require_average, require_no_masks
from attribution.rounds.stored_tensors import misfit
from attribution.rounds.tensor_bytes import Tensor, sizes
from attribution.rounds.writing import RoundDraft, RoundsWriter

_LOG = logging.getLogger("flwr.rounds")  # below the logger of Flower, so that it is read with the rest of the run
_MOST_LETTERS = 500
Recorded = TypeVar("Recorded", bound=Strategy)
Admit = Callable[[Federation, int, str, RecordedUpdate], None]
"""Refuses an update by a RoundsError: of which federation and round, and the hash of the model that it began from."""


def record_rounds(
    strategy: Recorded,
    *,
    folder: str | Path,
    consortium: str,
    members: str | Path | Sequence[Member],
    adapter: str | Path | Mapping[str, Any] | None = None,
    admit: Admit | None = None,
) -> Recorded:
    """The same strategy, which from now on writes each round of training to a folder.

    Args:
        strategy: of Flower's message API.
        folder: where rounds go; a run that is resumed goes on there, from the global model of the last round.
        consortium: what the federation is called.
        members: who takes part and by which public key of a SuperNode, or the file that says so.
        adapter: PEFT's `adapter_config.json` or what is in it, where LoRA is trained; None for whole models.
        admit: what refuses an update, which is then left out; `deployment.members.flower.require_signature` where
            members sign, for an update that its member did not sign would later stop the import of all.

    Raises:
        DestinationError: nothing can be written to the folder.
        RoundsError: the strategy's result is no average of what was sent, the members are not told apart by the keys
            of their nodes, or the folder holds the rounds of another federation.
    """
    require_average(strategy)
    weighted_by = weight_name(strategy)
    directory = NodeDirectory(read_members(members))
    try:
        federation = Federation(consortium=consortium, members=directory.members, adapter=_adapter_config(adapter))
    except ValidationError as error:
        raise RoundsError(first_problem(error)) from error
    if admit is None and (signing := [each.client for each in federation.members if each.signing_key is not None]):
        raise RoundsError(
            f"members: {signing[0]!r}: has a signing_key, and nothing looks at what it signs; give"
            " admit=require_signature, which is in deployment.members.flower"
        )
    admitted = None if admit is None else partial(admit, federation)
    recorder = _Recorder(strategy, RoundsWriter(Path(folder), federation), directory, weighted_by, admitted)
    for name in ("configure_train", "aggregate_train", "configure_evaluate"):
        setattr(strategy, name, getattr(recorder, name))
    return strategy


def _adapter_config(adapter: str | Path | Mapping[str, Any] | None) -> dict[str, Any] | None:
    """PEFT's configuration as JSON has it, which knows no sets."""
    if adapter is None:
        return None
    if isinstance(adapter, str | Path):
        return read_json_object(Path(adapter), RoundsError)
    try:
        document: dict[str, Any] = json.loads(json.dumps(dict(adapter), default=sorted, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise RoundsError(f"adapter: is no configuration that JSON can hold: {in_one_line(error)}") from error
    return document


class _Stopwatch:
    """How long a round takes, and how much of that the recorder does."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """A round begins."""
        self._began, self.recording_s = perf_counter(), 0.0

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While the recorder works."""
        began = perf_counter()
        try:
            yield
        finally:
            self.recording_s += perf_counter() - began

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """While the strategy works in between."""
        began = perf_counter()
        try:
            yield
        finally:
            self.recording_s -= perf_counter() - began

    @property
    def round_s(self) -> float:
        """How long the round has taken so far."""
        return perf_counter() - self._began


class _Recorder:
    """The calls of a strategy with which a round begins and ends, and with which it is gone on from."""

    def __init__(
        self,
        strategy: Strategy,
        writer: RoundsWriter,
        directory: NodeDirectory,
        weighted_by: str,
        admit: Callable[[int, str, RecordedUpdate], None] | None,
    ) -> None:
        self._configure_train = strategy.configure_train
        self._aggregate_train = strategy.aggregate_train
        self._configure_evaluate = strategy.configure_evaluate
        self._writer, self._directory, self._weighted_by, self._admit = writer, directory, weighted_by, admit
        self._before: dict[str, Tensor] = {}
        self._after: Arrays | None = None
        self._clients: dict[str, Metadata] = {}  # of whom an update is awaited, and in answer to what
        self._missing: list[Missing] = []
        self._watch = _Stopwatch()

    def configure_train(self, server_round: int, arrays: Arrays, config: Any, grid: Grid) -> Sequence[Message]:
        """Begin a round: the messages of the strategy, but those to nodes that are no member's."""
        self._watch.start()
        with self._watch.at_work():
            self._before, self._clients, self._missing = self._require_base(arrays), {}, []
        messages = [*self._configure_train(server_round, arrays, config, grid)]
        with self._watch.at_work():
            clients = self._directory.clients_of(grid) if messages else {}
            sent = [message for message in messages if self._is_to_member(message, clients)]
        if messages and not sent:
            raise RoundsError(f"round {server_round}: no node of it is a member's: {self._directory.stranger}")
        return sent

    def _is_to_member(self, message: Message, clients: Mapping[int, str]) -> bool:
        require_no_masks(message.content)
        client = clients.get(message.metadata.dst_node_id)
        if client is None:
            self._leave_out(None, message.metadata.dst_node_id, self._directory.stranger)
            return False
        if client in self._clients:
            raise RoundsError(f"two messages of one round go to {client!r}, and a second update would be paid again")
        self._clients[client] = message.metadata
        say_recorded_round(message.content, self._writer.next)
        return True

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[Any, Any]:
        """End a round: what can be credited is written, then averaged by the strategy, then written as its result."""
        if not self._clients:
            return self._aggregate_train(server_round, replies)
        with self._watch.at_work():
            with self._writer.draft() as draft:
                passed = [*self._kept_replies(replies, draft)]
                with self._watch.at_rest():
                    arrays, metrics = self._aggregate_train(server_round, passed)
                if arrays is not None:
                    after = record_tensors(arrays)
                    self._require_model(after)
                    draft.complete(self._missing, after)
            if arrays is None:
                self._record_nothing()
        self._before, self._clients, self._after = {}, {}, arrays
        recording_s, round_s = self._watch.recording_s, self._watch.round_s
        _LOG.info(
            "round %d is recorded, in %.3f s of %.1f s (%.1f %%)",
            self._writer.last, recording_s, round_s, 100 * recording_s / round_s,
        )  # fmt: skip
        return arrays, metrics

    def _kept_replies(self, replies: Iterable[Message], draft: RoundDraft) -> Iterator[Message]:
        """The replies that the strategy may have: errors, which it counts, and updates that are in the record."""
        awaited = {metadata.message_id: client for client, metadata in self._clients.items()}
        replies = [*replies]
        forms = _forms_of(replies, awaited)
        usual = usual_form(forms.values())
        for reply in replies:
            client = awaited.pop(reply.metadata.reply_to_message_id, None)
            if client is None:
                self._leave_out(None, reply.metadata.src_node_id, "it answered what it was not asked")
            elif reply.has_error():
                self._leave_out(client, self._clients[client].dst_node_id, f"error: {reply.error.reason}")
                yield reply
            elif self._keep(client, reply.content, draft, forms[reply.metadata.reply_to_message_id], usual):
                yield reply
        for client in awaited.values():
            self._leave_out(client, self._clients[client].dst_node_id, "no answer within the time of the round")

    def _keep(self, client: str, content: Content, draft: RoundDraft, form: Form | None, usual: Form | None) -> bool:
        """Whether what a client sent is in the record."""
        try:
            update, problem = read_update(content, client, sizes(self._before), self._weighted_by)
            require_form(form, usual)
            draft.keep(update, self._admit)
        except RoundsError as error:
            self._leave_out(client, self._clients[client].dst_node_id, str(error))
            return False
        if problem is not None:
            _LOG.warning("%s is recorded without a statement: %s", client, problem)
        return True

    def _leave_out(self, client: str | None, node: int, reason: str) -> None:
        """Name whoever is not in the round."""
        line = " ".join(reason.split())[:_MOST_LETTERS] or "no reason was told"
        _LOG.warning("%s (node %d) is left out of the round: %s", client or "a node of no member", node, line)
        self._missing.append(Missing(client=client, node=str(node), reason=line))

    def _record_nothing(self) -> None:
        """Write a round of which the strategy made nothing: the model is what it was, and nobody sent anything."""
        known = {each.client for each in self._missing}
        for client, metadata in self._clients.items():
            if client not in known:
                self._leave_out(client, metadata.dst_node_id, "the strategy made nothing of the round")
        self._writer.add([], self._missing, self._before)

    def configure_evaluate(self, server_round: int, arrays: Arrays, config: Any, grid: Grid) -> Iterable[Message]:
        """Evaluate what the strategy returned, and nothing else."""
        if arrays is not self._after:
            self._require_base(arrays)
        return self._configure_evaluate(server_round, arrays, config, grid)

    def _require_base(self, arrays: Arrays) -> dict[str, Tensor]:
        """The tensors of a model, which is refused where it is not what the last round ended with."""
        tensors = record_tensors(arrays)
        try:
            self._writer.begin(tensors)
        except RoundsError as error:
            if self._after is None:
                raise
            what = "what wraps the recorded strategy, as noise on the server does, or the server app has changed it"
            raise RoundsError(f"{error}; {what}") from error
        return tensors

    def _require_model(self, tensors: Mapping[str, Tensor]) -> None:
        """Refuse a result with other tensors than the round began with."""
        if (problem := misfit(sizes(tensors), sizes(self._before))) is not None:
            raise RoundsError(f"the strategy returned another model than it was given: {problem}")


def _forms_of(replies: Iterable[Message], awaited: Container[str]) -> dict[str, Form | None]:
    """The form of the first answer to each message, by the message's id; looked at once, since it takes some ms."""
    forms: dict[str, Form | None] = {}
    for reply in replies:
        message_id = reply.metadata.reply_to_message_id
        if message_id in awaited and message_id not in forms and not reply.has_error():
            forms[message_id] = reply_form(reply.content)
    return forms
