"""Linear layers that take the product of weights and rows in whichever way is fastest on this machine.

PyTorch's matrix product on CPU runs on one thread when its input has one row, and on some machines it is far from what
their units can do. Two other ways give the same sums: one block of output rows for each thread (*split*), and oneDNN's
product over a copy of the weights in blocks (*packed*). Together they were measured to take 0.6 of the time of a
decoding step at 1, 8 and 32 rows (135M parameters, 2 threads of an AMD EPYC with AVX-512); elsewhere splitting was 3
times as slow. So all are timed when a model is loaded, and layers of one shape take the fastest for each number of
rows. Outputs lie in memory as those of a plain layer do: of others attention and the next product are many times as
slow. Knows no model.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

ROWS = (1, 2, 4, 8, 16, 32, 128)  # what is timed; other numbers are taken like the next of these, or the last
Product = Callable[[nn.Linear, Tensor], Tensor]
"""A way to compute what a linear layer computes; without a gradient."""
_RUNS = 4  # as what else starts on the machine meanwhile disturbs some; of the most rows, which take long, half
_WORTH_IT = 0.9
_COLD_BYTES = 32 << 20  # so much is timed in turn that weights come from memory, as in a decoding step
_FEW_ROWS = 8  # more take so long that it does not matter where the weights come from
PACKED_BYTES = 2 << 30
"""The copies of a model may take so much; one whose layers are larger keeps its weights once."""
_PACKED_FOR = 32  # rows, for which oneDNN lays blocks out; others read them, too

_TIMED: dict[object, Mapping[int, Product]] = {}


@dataclass(frozen=True)
class _PackedWeights:
    """The weights of a layer in oneDNN's blocks, and of what they are a copy.

    Attributes:
        blocks: the copy.
        weight: the numbers that were copied. They are kept, so that no others can come to lie where they do: other
            weights are told by their address. A change of them through `.data` does not show; a frozen model has none.
        version: PyTorch's count of their changes in place.
    """

    blocks: Tensor
    weight: Tensor
    version: int

    def __deepcopy__(self, _memo: object) -> "_PackedWeights":
        """Itself: blocks cannot be copied, and of a copied layer's weights they are none."""
        return self


class _TimedLinear(nn.Linear):
    """An `nn.Linear` that has a product of its own for each number of rows, as long as its weights are frozen."""

    products: Mapping[int, Product]
    packed: _PackedWeights | None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Linear gives it
        rows = input.numel() // self.in_features
        timed_as = next((timed for timed in ROWS if timed >= rows), ROWS[-1])
        product = self.products.get(timed_as)
        if product is not None and torch.is_inference_mode_enabled():
            return product(self, input)
        if product is packed_product and (packed := _copy_of(self)) is not None and not self.weight.requires_grad:
            output: Tensor = _FrozenProduct.apply(input, packed)  # type: ignore[no-untyped-call]
            return output if self.bias is None else output + self.bias
        return super().forward(input)


class _FrozenProduct(torch.autograd.Function):
    """The packed product, differentiable by its input, backward and forward (torch.autograd.Function's contract)."""

    @staticmethod
    def forward(input: Tensor, packed: _PackedWeights) -> Tensor:  # noqa: A002 - as above
        return _over_blocks(input, packed.blocks)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, _PackedWeights], _output: Tensor) -> None:
        _, ctx.packed = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.packed.weight, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _packed_has_none: None) -> Tensor:
        product: Tensor = _FrozenProduct.apply(tangent, ctx.packed)  # type: ignore[no-untyped-call]
        return product


def split_product(layer: nn.Linear, input: Tensor) -> Tensor:  # noqa: A002 - as above
    """The product in one block of outputs for each thread; whole where these cannot be alike."""
    rows, threads = input.numel() // layer.in_features, torch.get_num_threads()
    if layer.out_features % threads:
        return nn.functional.linear(input, layer.weight, layer.bias)
    blocks = layer.weight.view(threads, layer.out_features // threads, layer.in_features)
    columns = input.reshape(rows, layer.in_features).t().expand(threads, -1, -1)
    output = torch.bmm(blocks, columns).view(layer.out_features, rows).t()  # (rows, outputs)
    output = output if layer.bias is None else output + layer.bias
    return output.contiguous().view(*input.shape[:-1], layer.out_features)


def packed_product(layer: nn.Linear, input: Tensor) -> Tensor:  # noqa: A002 - as above
    """The product over the packed copy; whole where that is of other weights, as where somebody put in others."""
    if (packed := _copy_of(layer)) is None:
        return nn.functional.linear(input, layer.weight, layer.bias)
    return _over_blocks(input, packed.blocks, layer.bias)


def _copy_of(layer: nn.Linear) -> _PackedWeights | None:
    """The packed copy of a layer's weights; None where there is none, or it is of other weights."""
    packed: _PackedWeights | None = getattr(layer, "packed", None)
    if packed is None or layer.weight.data_ptr() != packed.weight.data_ptr():
        return None
    return packed if layer.weight._version == packed.version else None  # noqa: SLF001 - of changes in place


def _over_blocks(input: Tensor, blocks: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: A002 - as above
    """As PyTorch's own compiler calls it for frozen weights on CPU."""
    output: Tensor = torch.ops.mkldnn._linear_pointwise(input, blocks, bias, "none", [], "")  # noqa: SLF001 - as above
    return output


def speed_up(model: nn.Module, choose: "Callable[[Sequence[nn.Linear]], Mapping[int, Product]] | None" = None) -> None:
    """Let plain linear layers of a frozen model on CPU take the fastest product, in place; weights and names stay.

    `choose` says which of `ROWS` takes which, of layers of one shape; it is asked once for each shape.
    """
    shapes: dict[tuple[int, int], list[nn.Linear]] = {}
    for module in model.modules():
        if type(module) is nn.Linear:
            shapes.setdefault((module.out_features, module.in_features), []).append(module)
    weights = {each.weight.data_ptr(): each.weight.nbytes for layers in shapes.values() for each in layers}
    ways: tuple[Product, ...] = (split_product, packed_product)
    if sum(weights.values()) > PACKED_BYTES:
        ways = (split_product,)
    for layers in shapes.values():
        chosen = _fastest(layers, ways) if choose is None else choose(layers)
        for layer in layers if chosen else ():
            layer.__class__ = _TimedLinear
            setattr(layer, "products", chosen)  # noqa: B010 - nn.Module's own attributes are not typed
            _pack(layer, needed=packed_product in chosen.values())


def _fastest(layers: Sequence[nn.Linear], ways: tuple[Product, ...]) -> Mapping[int, Product]:
    """As `fastest_products`, timed once in a process: a second model of the same shapes is loaded at once."""
    weight = layers[0].weight
    key = weight.shape, weight.dtype, layers[0].bias is None, torch.get_num_threads(), ways
    if key not in _TIMED:
        _TIMED[key] = fastest_products(layers, ways)
    return _TIMED[key]


def fastest_products(layers: Sequence[nn.Linear], ways: Sequence[Product]) -> dict[int, Product]:
    """Which product of layers of one shape is clearly faster than a plain layer's, by rows and this machine's clock."""
    first = layers[0]
    timed = layers[: max(1, _COLD_BYTES // first.weight.nbytes)]
    chosen: dict[int, Product] = {}
    packable = packed_product in ways and all(_pack(layer) for layer in timed)
    able = [way for way in ways if way is not packed_product or packable]
    if torch.get_num_threads() == 1 or first.out_features % torch.get_num_threads():
        able = [way for way in able if way is not split_product]
    with torch.inference_mode():
        for rows in ROWS if able else ():
            x = torch.ones(rows, first.in_features, dtype=first.weight.dtype)
            seconds = _seconds((nn.Linear.forward, *able), timed if rows <= _FEW_ROWS else timed[:2], x)
            best = min(able, key=seconds.__getitem__)
            if seconds[best] < _WORTH_IT * seconds[nn.Linear.forward]:
                chosen[rows] = best
    for layer in timed:
        _pack(layer, needed=False)
    return chosen


def _pack(layer: nn.Linear, *, needed: bool = True) -> bool:
    """Make a layer's packed copy, or drop it; whether it has one, which not every machine makes of every dtype."""
    copy: _PackedWeights | None = None
    if needed and torch.backends.mkldnn.is_available():
        try:
            with torch.no_grad():
                weight = layer.weight.detach()
                blocks = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR)  # noqa: SLF001 - as above
                _over_blocks(weight.new_zeros(1, layer.in_features), blocks)
            copy = _PackedWeights(blocks, weight, weight._version)  # noqa: SLF001 - as above
        except (RuntimeError, AttributeError):  # not of this dtype, or not in this build
            copy = None
    setattr(layer, "packed", copy)  # noqa: B010 - as above
    return copy is not None


def _seconds(ways: Sequence[Product], layers: Sequence[nn.Linear], x: Tensor) -> dict[Product, float]:
    """Of the products of all layers, one after the other: the best of a few runs of each way, which take turns."""
    best = dict.fromkeys(ways, math.inf)
    for _ in range(_RUNS // 2 if len(x) == ROWS[-1] else _RUNS):
        for way in ways:
            started = time.perf_counter()
            for layer in layers:
                way(layer, x)
            best[way] = min(best[way], time.perf_counter() - started)
    return best
