"""Flower's server side in little: records, messages, a grid and an averaging strategy, as `flower_messages` has them.

`tests/end_to_end/test_flower.py` runs the recorder under Flower itself.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

PUBLIC = {
    client: ec.derive_private_key(100 + index, ec.SECP384R1()).public_key()
    for index, client in enumerate(("north", "south", "west", "mars"))
}


def pem(client: str) -> bytes:
    """A node's key as the SuperLink has it."""
    return PUBLIC[client].public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def ssh(client: str, comment: str = "") -> str:
    """A node's key as its operator has it."""
    line = PUBLIC[client].public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    return f"{line} {comment}".strip()


@dataclass
class Array:
    dtype: str
    stype: str
    data: bytes


def array(values: np.ndarray) -> Array:
    """A tensor as Flower sends it."""
    file = BytesIO()
    np.save(file, values, allow_pickle=False)
    return Array(values.dtype.name, "numpy.ndarray", file.getvalue())


def record(values: dict[str, np.ndarray]) -> dict[str, Array]:
    return {name: array(each) for name, each in values.items()}


def numbers(arrays: dict[str, Array]) -> dict[str, np.ndarray]:
    return {name: np.load(BytesIO(each.data)) for name, each in arrays.items()}


@dataclass
class Content:
    array_records: dict[str, dict[str, Array]] = field(default_factory=dict)
    metric_records: dict[str, dict[str, Any]] = field(default_factory=dict)
    config_records: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Metadata:
    dst_node_id: int
    src_node_id: int = 0
    message_id: str = ""
    reply_to_message_id: str = ""


@dataclass
class Error:
    reason: str


@dataclass
class Message:
    metadata: Metadata
    content: Content = field(default_factory=Content)
    error: Error | None = None

    def has_error(self) -> bool:
        return self.error is not None


@dataclass
class Node:
    node_id: int
    public_key: bytes


Answer = Callable[[Message], Content | str | None]
"""What a node answers: content, an error or nothing."""


class Grid:
    """Nodes by id: whose each is, and what it answers."""

    def __init__(self, nodes: dict[int, tuple[bytes, Answer]]) -> None:
        self.nodes = nodes
        self.sent: list[int] = []

    def get_nodes(self) -> list[Node]:
        return [Node(node_id, key) for node_id, (key, _) in self.nodes.items()]

    def send_and_receive(self, messages: Iterable[Message]) -> list[Message]:
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            self.sent.append(node)
            message.metadata.message_id = f"to {node}, {len(self.sent)}"
            answer = self.nodes[node][1](message)
            if isinstance(answer, Content):
                replies.append(Message(Metadata(1, node, "", message.metadata.message_id), answer))
            elif isinstance(answer, str):  # of the SuperLink, in the node's stead
                replies.append(Message(Metadata(1, 1, "", message.metadata.message_id), error=Error(answer)))
        return replies


def trained(
    change: float, weight: Any = 1, statement: Any = None, alter: Callable[[Content], object] = lambda _: None
) -> Answer:
    """A node that adds a number to each of the model's and sends what came of it."""

    def answer(message: Message) -> Content:
        model = numbers(message.content.array_records["arrays"])
        content = Content(
            {"arrays": record({name: each + each.dtype.type(change) for name, each in model.items()})},
            {"metrics": {"num-examples": weight, "loss": 1.0}},
            {} if statement is None else {"protoken": {"statement": statement}},
        )
        alter(content)
        return content

    return answer


class FedAvg:
    """Averages all that it gets."""

    weighted_by_key = "num-examples"

    def __init__(self) -> None:
        self.errors = 0

    def configure_train(self, server_round: int, arrays: dict[str, Array], config: Any, grid: Grid) -> list[Message]:
        content = Content({"arrays": arrays}, {}, {"config": {"server-round": server_round}})
        return [Message(Metadata(node.node_id), content) for node in grid.get_nodes()]

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[Any, Any]:
        replies = list(replies)
        good = [reply.content for reply in replies if not reply.has_error()]
        self.errors += len(replies) - len(good)
        if not good:
            return None, None
        weights = np.array([each.metric_records["metrics"][self.weighted_by_key] for each in good], float)
        sent = [numbers(each.array_records["arrays"]) for each in good]
        shares = weights / weights.sum()
        average = {
            name: np.asarray(sum(share * each[name] for share, each in zip(shares, sent, strict=True))).astype(
                sent[0][name].dtype
            )
            for name in sent[0]
        }
        return record(average), {"loss": 1.0}

    def configure_evaluate(self, server_round: int, arrays: dict[str, Array], config: Any, grid: Grid) -> list[Message]:
        return []

    def start(self, grid: Grid, arrays: dict[str, Array], rounds: int) -> dict[str, Array]:
        """Train some rounds, as Flower's own `start` does."""
        for number in range(1, rounds + 1):
            replies = grid.send_and_receive(self.configure_train(number, arrays, {}, grid))
            result, _ = self.aggregate_train(number, replies)
            arrays = arrays if result is None else result
            self.configure_evaluate(number, arrays, {}, grid)
        return arrays
