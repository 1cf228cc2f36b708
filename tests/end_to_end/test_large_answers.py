"""An answer of many megabytes reaches its caller: between replica and caller nothing has a bound of its own."""

import httpx
import pytest

from rewards.ledger.ledger import Ledger
from tests.attribution.consortia import base_model, updates, write_consortium
from tests.end_to_end.service import new_ledger, service
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.slow
BOUND = 4 << 20
"""Bytes of a message by gRPC, unless another bound is set."""
RESPONSES, TOKENS = 8, 500


def test_answer_larger_than_a_message_by_default_is_whole_and_booked_once(tmp_path):
    """With all log-probabilities of eight responses; it would be booked, broken off, and asked for again."""
    model = base_model("llama", max_position_embeddings=2048)
    bundle = write_consortium(tmp_path, model, updates(model))
    ends = {"2": -100}  # the end of a response, which a model that knows nothing might choose at once
    request = {
        "model": "test",
        "messages": [{"role": "user", "content": "a"}],
        "max_tokens": TOKENS,
        "n": RESPONSES,
        "logit_bias": ends,
        "logprobs": True,
        "top_logprobs": 20,
    }
    with service(bundle, new_ledger(tmp_path), tmp_path / "serve.log") as running:
        answer = httpx.post(
            f"{running.address}/v1/chat/completions",
            headers={"Authorization": f"Bearer {running.application}"},
            json=request,
            timeout=PATIENCE_S,
        )
        told, whole = answer.json(), RESPONSES * TOKENS * 1_000_000
        until(lambda: sum(Ledger(running.ledger).balances().values()) >= whole)

        assert BOUND < len(answer.content)
        assert [TOKENS] * RESPONSES == [len(choice["logprobs"]["content"]) for choice in told["choices"]]
        assert RESPONSES * TOKENS == told["usage"]["completion_tokens"]
        assert whole == sum(Ledger(running.ledger).balances().values())
