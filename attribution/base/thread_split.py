"""Linear layers that use every thread for the few rows of a decoding step, where this machine gains by it.

PyTorch's matrix product on CPU runs on one thread when its input has one row. Taken as a batched product of one block
of output rows for each thread, the same arithmetic was measured 1.5 times as fast at 1 row and 3.9 times at 4
(49 152 x 576, 2 threads of an AMD EPYC with AVX2), but 3 times as slow at 1 row on an Intel Xeon with AVX-512. So both
are timed when a model is loaded, and each layer takes the faster for each number of rows. The outputs lie in memory as
those of a plain layer do: of others attention and the next product are many times as slow. Knows no model.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

ROWS = (1, 2, 4, 8, 16, 32)  # what is timed; other numbers are taken like the next of these
_RUNS = 3
_WORTH_IT = 0.9


class _ThreadSplitLinear(nn.Linear):
    """An `nn.Linear` that computes some numbers of rows, without gradient, in one block of outputs per thread."""

    split_at: frozenset[int]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Linear gives it
        rows = input.numel() // self.in_features
        timed_as = 1 << (rows - 1).bit_length()
        if torch.is_grad_enabled() or timed_as not in self.split_at or self.out_features % torch.get_num_threads():
            return super().forward(input)
        return _split_product(self, input)


def _split_product(layer: nn.Linear, input: Tensor) -> Tensor:  # noqa: A002 - as above
    rows, threads = input.numel() // layer.in_features, torch.get_num_threads()
    blocks = layer.weight.view(threads, layer.out_features // threads, layer.in_features)
    columns = input.reshape(rows, layer.in_features).t().expand(threads, -1, -1)
    output = torch.bmm(blocks, columns).view(layer.out_features, rows).t()  # (rows, outputs)
    output = output if layer.bias is None else output + layer.bias
    return output.contiguous().view(*input.shape[:-1], layer.out_features)


def faster_split(layer: nn.Linear) -> frozenset[int]:
    """For which of `ROWS` the layer is clearly faster split, by the clock of this machine."""
    if torch.get_num_threads() == 1 or layer.out_features % torch.get_num_threads():
        return frozenset()
    faster = set()
    with torch.inference_mode():
        for rows in ROWS:
            x = torch.ones(rows, layer.in_features, dtype=layer.weight.dtype)
            split, whole = (_seconds(product, layer, x) for product in (_split_product, nn.Linear.forward))
            if split < _WORTH_IT * whole:
                faster.add(rows)
    return frozenset(faster)


def _seconds(product: Callable[[nn.Linear, Tensor], Tensor], layer: nn.Linear, x: Tensor) -> float:
    times = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        product(layer, x)
        times.append(time.perf_counter() - started)
    return min(times)


def split_linear_layers(model: nn.Module, choose: Callable[[nn.Linear], frozenset[int]] = faster_split) -> None:
    """Let plain linear layers of a frozen model on CPU split their work, in place; weights and names stay.

    `choose` says for which of `ROWS`; it is asked once for each shape.
    """
    chosen: dict[tuple[int, int], frozenset[int]] = {}
    for module in list(model.modules()):
        if type(module) is nn.Linear:
            shape = module.out_features, module.in_features
            if shape not in chosen:
                chosen[shape] = choose(module)
            if chosen[shape]:
                module.__class__ = _ThreadSplitLinear
                setattr(module, "split_at", chosen[shape])  # noqa: B010 - nn.Module's own attributes are not typed
