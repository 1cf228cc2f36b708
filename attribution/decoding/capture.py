"""Hooks that remember what single layers saw, inside a `with`; none is left behind, also when the model raises.

Does not know what the remembered tensors are for.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn


@dataclass(frozen=True)
class Tap:
    """One tensor to remember: the first input of `module`, or its output."""

    module: nn.Module
    side: Literal["input", "output"]


@contextmanager
def capture(taps: Mapping[str, Tap]) -> Iterator[dict[str, Tensor]]:
    """Within, every forward pass leaves the tapped tensors, detached, in the yielded mapping."""
    seen: dict[str, Tensor] = {}
    handles = []
    try:
        for name, tap in taps.items():
            handles.append(tap.module.register_forward_hook(_remember(seen, name, tap.side), with_kwargs=True))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _remember(seen: dict[str, Tensor], name: str, side: str) -> Callable[..., None]:
    def hook(_: nn.Module, arguments: tuple[Tensor, ...], keywords: dict[str, Tensor], output: Tensor) -> None:
        if side == "output":
            seen[name] = output.detach()
        else:
            seen[name] = (arguments[0] if arguments else keywords["hidden_states"]).detach()

    return hook
