"""Linear layers that use every thread for the few rows of a decoding step.

PyTorch's matrix product on CPU runs on one thread when its input has one row, and slows down before it speeds up with
a few more. Taken as a batched product of one block of output rows for each thread, the same arithmetic was measured 1.5
times as fast at 1 row, 3.9 times at 4 and 2.3 times at 8 (49 152 x 576, 2 threads); from about 32 rows on there is
nothing to gain. Knows no model.
"""

import torch
from torch import Tensor, nn

__all__ = ["split_linear_layers"]

_ROWS_MAX = 32


class _ThreadSplitLinear(nn.Linear):
    """An `nn.Linear` that computes few rows, without gradient, in one block of outputs per thread."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Linear gives it
        threads = torch.get_num_threads()
        rows = input.numel() // self.in_features
        if torch.is_grad_enabled() or rows > _ROWS_MAX or self.out_features % threads:
            return super().forward(input)
        blocks = self.weight.view(threads, self.out_features // threads, self.in_features)
        columns = input.reshape(rows, self.in_features).t().expand(threads, -1, -1)
        output = torch.bmm(blocks, columns).view(self.out_features, rows).t()  # (rows, outputs)
        output = output if self.bias is None else output + self.bias
        return output.reshape(*input.shape[:-1], self.out_features)


def split_linear_layers(model: nn.Module) -> None:
    """Let every plain linear layer of a frozen model on CPU split its work, in place; weights and names stay."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = _ThreadSplitLinear
