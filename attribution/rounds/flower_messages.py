"""What a recorder takes of Flower: its strategy, its messages, and the tensors, weight and statement of a reply.

The protocols say what of Flower 1.42 is used, so that nothing here imports it. Numbers stay in the messages' bytes.
"""

import math
from collections.abc import Iterable, Mapping, MutableMapping
from io import BytesIO
from typing import Any, Protocol

import numpy as np
from numpy.lib import format as npy

from attribution.errors import RoundsError
from attribution.files.untrusted import in_one_line
from attribution.rounds.documents import MOST_STATEMENT_LETTERS
from attribution.rounds.flower_strategies import layers
from attribution.rounds.stored_tensors import misfit
from attribution.rounds.tensor_bytes import ITEM_BYTES, NAMES, Tensor, as_tensor, sizes
from attribution.rounds.writing import SentUpdate

_NUMPY = "numpy.ndarray"  # Flower's name of the one form in which it sends tensors
STATEMENT_RECORD, STATEMENT_FIELD = "protoken", "statement"
"""Under which names a client's statement travels in a reply: of the record, and in it."""
SERVER_ROUND, RECORDED_ROUND = "server-round", "protoken-round"
"""Under which names a message says its round: Flower's, counted from 1 in each run, and that of the folder."""
_LEAST_WEIGHT, _MOST_WEIGHT = 1e-100, 1e100  # of which sums are numbers, however many members there are
_HEADS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_CODES = {name: code for code, name in NAMES.items()}


class Array(Protocol):
    """A tensor on the way: the bytes of a `.npy` file, and what the sender says of them."""

    dtype: str
    stype: str
    data: bytes


Arrays = Mapping[str, Array]
"""An `ArrayRecord`."""


class Content(Protocol):
    """The records of a message, by kind."""

    array_records: Mapping[str, Arrays]
    metric_records: Mapping[str, Mapping[str, Any]]
    config_records: Mapping[str, MutableMapping[str, Any]]


class Metadata(Protocol):
    """Where a message goes or comes from; its id is known once it is on the way."""

    message_id: str
    reply_to_message_id: str
    src_node_id: int
    dst_node_id: int


class Message(Protocol):
    """A message to a node or a reply of one, which is an error or has content."""

    metadata: Metadata
    content: Content
    error: Any

    def has_error(self) -> bool:
        """Whether it is an error."""


class Node(Protocol):
    """A SuperNode as the SuperLink knows it; the key is PEM."""

    node_id: int
    public_key: bytes


class Grid(Protocol):
    """What a strategy reaches nodes by."""

    def get_nodes(self) -> Iterable[Node]:
        """The nodes that are there."""


class Strategy(Protocol):
    """A strategy of the message API."""

    def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Iterable[Any]:
        """The messages with which a round begins."""

    def aggregate_train(self, server_round: int, replies: Iterable[Any]) -> tuple[Any, Any]:
        """What comes of the replies."""

    def configure_evaluate(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Iterable[Any]:
        """The messages by which what came of the round is evaluated."""


def say_recorded_round(content: Content, number: int) -> None:
    """Tell a client beside the round of its run which one it is in the record, since that is what it has to sign."""
    for record in content.config_records.values():
        if SERVER_ROUND in record:
            record[RECORDED_ROUND] = number


def weight_name(strategy: Any) -> str:
    """The metric by which a strategy, or the one within it, weighs updates.

    Raises:
        RoundsError: it does not say.
    """
    for each in layers(strategy):
        if isinstance(name := getattr(each, "weighted_by_key", None), str):
            return name
    raise RoundsError(
        f"{type(strategy).__name__} cannot be recorded: it has no weighted_by_key, so nobody knows by which metric it"
        " weighs updates"
    )


def read_update(
    content: Content, client: str, shapes: Mapping[str, tuple[int, ...]], weighted_by: str
) -> tuple[SentUpdate, str | None]:
    """What a client sent, and what of it is not kept.

    Args:
        content: of its reply.
        client: whose it is.
        shapes: the sizes of the model's tensors.
        weighted_by: the metric that is its weight.

    Raises:
        RoundsError: it is not one update of this model, with finite numbers and a weight.
    """
    records = [*content.array_records.values()]
    if len(records) != 1:
        raise RoundsError(f"sent {len(records)} records of arrays; one is wanted")
    tensors = record_tensors(records[0])
    if (problem := misfit(sizes(tensors), shapes)) is not None:
        raise RoundsError(problem)
    for name, tensor in tensors.items():
        if not tensor.is_finite_in_32_bits():
            raise RoundsError(f"tensor {name!r} holds NaN or infinity, in 32 bits at least")
    statement = content.config_records.get(STATEMENT_RECORD, {}).get(STATEMENT_FIELD)
    problem = None
    if statement is not None and not (isinstance(statement, str) and len(statement) <= MOST_STATEMENT_LETTERS):
        statement, problem = None, f"its statement is no text of at most {MOST_STATEMENT_LETTERS} letters"
    return SentUpdate(client, _weight(content, weighted_by), tensors, statement), problem


def _weight(content: Content, name: str) -> float:
    records = [*content.metric_records.values()]
    if len(records) != 1:
        raise RoundsError(f"sent {len(records)} records of metrics; one is wanted")
    weight = records[0].get(name)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise RoundsError(f"its weight {name!r} is {weight!r:.50}; a finite number above 0 is wanted")
    if not _LEAST_WEIGHT <= weight <= _MOST_WEIGHT:
        raise RoundsError(
            f"its weight {name!r} is {weight!r:.50}; wanted is one from {_LEAST_WEIGHT} to {_MOST_WEIGHT}"
        )
    return float(weight)


def record_tensors(arrays: Arrays) -> dict[str, Tensor]:
    """The tensors of an `ArrayRecord`, which share its memory.

    Raises:
        RoundsError: one is not in NumPy's form, or of numbers that no safetensors file holds.
    """
    return {name: _tensor(name, array) for name, array in arrays.items()}


def _tensor(name: str, array: Array) -> Tensor:
    if array.stype != _NUMPY:
        raise RoundsError(f"tensor {name!r}: is sent as {array.stype:.50}, not as {_NUMPY}")
    try:
        values = _values(array.data)
    except Exception as error:  # a member writes the head, and NumPy reads it with Python's own parser
        raise RoundsError(f"tensor {name!r}: is not in NumPy's form: {in_one_line(error)}") from error
    code = _CODES.get(array.dtype)
    size = values.dtype.itemsize
    if values.dtype.kind == "V" and code is not None and ITEM_BYTES[code] == size:
        return Tensor(code, values.view(f"<u{size}"))  # bfloat16 and the like, whose name NumPy forgets
    return as_tensor(name, values)


def _values(data: bytes) -> Any:
    """The numbers in the bytes of a `.npy` file, which they share."""
    file = BytesIO(data)  # no copy either, unless it were written
    shape, is_fortran, dtype = _HEADS[npy.read_magic(file)](file)
    if dtype.hasobject:
        raise ValueError("it holds objects, not numbers")
    return np.ndarray(shape, dtype, data, file.tell(), order="F" if is_fortran else "C")
