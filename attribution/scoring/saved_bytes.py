"""What a part of a forward pass keeps for its backward pass, counted: the whole is planned by its first block.

Knows no model; weights that are kept anyway are not counted.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


class SavedBytes:
    """Bytes of the distinct storages that autograd kept."""

    def __init__(self) -> None:
        self.storages: dict[int, int] = {}

    @property
    def total(self) -> int:
        """All of them together."""
        return sum(self.storages.values())


@contextmanager
def count_saved(module: nn.Module) -> Iterator[SavedBytes]:
    """Within, whatever autograd keeps is counted, but for the parameters of a module."""
    saved = SavedBytes()
    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved.storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        yield saved
