"""Which token comes next: the likeliest one, or one drawn from the smallest set of likely ones. Knows no text."""

import math

import torch
from torch import Generator, Tensor

from attribution.errors import ScoreError
from attribution.records import Sampling


def choose_token(logits: Tensor, sampling: Sampling, generator: Generator) -> tuple[int, float]:
    """The next token and its log-probability at the temperature used, from logits (vocabulary,).

    Below the whole, `top_p` leaves the smallest set of tokens that together are as likely (nucleus sampling: Holtzman
    et al. 2020, arXiv 1904.09751).

    Raises:
        ScoreError: the logits are not numbers to choose by.
    """
    log_p = torch.log_softmax(logits.float() / sampling.scoring_temperature, -1)
    if sampling.temperature == 0 or sampling.top_p == 0:
        token = int(log_p.argmax())
    else:
        p, order = log_p.exp().sort(descending=True)
        if not math.isfinite(float(p[0])):
            raise ScoreError("the model's logits are NaN or infinite, so no token can be chosen")
        beyond = p.cumsum(0) - p >= sampling.top_p  # the smallest set that reaches top_p
        beyond[0] = False  # a top_p too small for float32 still leaves the likeliest token
        p[beyond] = 0
        token = int(order[torch.multinomial(p, 1, generator=generator)])
    logprob = float(log_p[token])
    if not math.isfinite(logprob):
        raise ScoreError("the model's logits are NaN or infinite, so no token can be chosen")
    return token, logprob
