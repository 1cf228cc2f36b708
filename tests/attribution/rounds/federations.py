"""A small federation whose rounds were recorded: three members, of which one is absent from the second round."""

from pathlib import Path

import numpy as np

from attribution.rounds.documents import Federation, Member, Missing
from attribution.rounds.writing import RoundsWriter, SentUpdate

MEMBERS = tuple(Member(client=client, name=client.title()) for client in ("north", "south", "west"))
FEDERATION = Federation(consortium="hospitals", members=MEMBERS)


def tensors(value: float) -> dict[str, np.ndarray]:
    """A model of two tensors that hold one number."""
    return {"a": np.full((2, 3), value, np.float32), "b": np.full((4,), value, np.float16)}


def sent(client: str, value: float, weight: float = 1.0) -> SentUpdate:
    """What a client sent."""
    return SentUpdate(client, weight, tensors(value), f'{{"of": "{client}"}}')


def write_rounds(folder: Path, rounds: int = 2) -> Path:
    """Record some rounds, the first with all three."""
    writer = RoundsWriter(folder, FEDERATION)
    for number in range(1, rounds + 1):
        writer.begin(tensors(float(number - 1)))
        clients = ("north", "south", "west") if number == 1 else ("north", "west")
        missing = [] if number == 1 else [Missing(client="south", node="123", reason="no answer")]
        writer.add([sent(client, number + index) for index, client in enumerate(clients)], missing, tensors(number))
    return folder
