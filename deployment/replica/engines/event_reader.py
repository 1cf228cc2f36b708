"""Server-sent events, as their bytes come (WHATWG, HTML, section 9.2): the data of each, without comments.

Knows no engine.
"""

MOST_BYTES = 1 << 26
"""Of one event: a prompt's ids come back in one, up to eight bytes each."""


class EventReader:
    """Puts events together from pieces of bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The data of the events that are whole now; an event's lines are joined as the standard has it.

        Raises:
            ValueError: an event does not end.
        """
        text = self._rest + data if self._rest else data
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n")
        *whole, self._rest = text.split(b"\n\n")
        if len(self._rest) > MOST_BYTES:
            raise ValueError(f"an event has more than {MOST_BYTES} bytes")
        return [data for event in whole if (data := _data(event))]


def _data(event: bytes) -> bytes:
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = (line for line in event.split(b"\n") if line.startswith(b"data:"))
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines)
