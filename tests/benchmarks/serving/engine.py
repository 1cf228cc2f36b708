"""The batch alone, one stream, driven by the thread that loaded the model: what the service is held against.

`python -m tests.benchmarks.serving.engine BUNDLE TOKENS DTYPE`, the prompts as a JSON list on its input; prints its
replies as JSON. In a process of its own, as a server would be.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from attribution.decoding.decode import Batch
from attribution.decoding.taps import Captures
from attribution.model import FederatedModel
from attribution.records import Sampling
from tests.benchmarks.serving.loads import Load, Reply

WARMING_TOKENS = 8


def drive_engine(bundle: Path, prompts: list[str], tokens: int, dtype: str) -> Load:
    """A response to every prompt, one after another, in a new process."""
    command = [sys.executable, "-m", "tests.benchmarks.serving.engine", str(bundle), str(tokens), dtype]
    answer = subprocess.run(command, check=True, input=json.dumps(prompts), stdout=subprocess.PIPE, text=True)
    told = json.loads(answer.stdout.splitlines()[-1])
    return Load(1, tuple(Reply(**reply) for reply in told["replies"]), told["processor_s"])


def main() -> None:
    """Load the model, warm it, and answer."""
    torch.set_num_threads(os.cpu_count() or 1)
    folder, tokens, dtype = sys.argv[1:]
    model = FederatedModel.load(Path(folder), dtype=dtype)
    batch, prompts = Batch(model, captures=Captures.NONE), json.load(sys.stdin)
    _answer(model, batch, prompts[0], WARMING_TOKENS)
    before = time.process_time()
    replies = [_answer(model, batch, prompt, int(tokens)) for prompt in prompts]
    processor_s = time.process_time() - before
    print(json.dumps({"replies": [asdict(reply) for reply in replies], "processor_s": processor_s}))


def _answer(model: FederatedModel, batch: Batch, prompt: str, tokens: int) -> Reply:
    begin, pieces, texts = time.perf_counter(), [], []
    batch.join("stream", model.encode_text(prompt), Sampling(max_new_tokens=tokens))
    while len(batch):
        for step in batch.step():
            if step.text:
                pieces.append(time.perf_counter())
                texts.append(step.text)
    end = time.perf_counter()
    generation = batch.leave("stream")
    return Reply(prompt, "".join(texts), len(generation.token_ids), begin, tuple(pieces), end)


if __name__ == "__main__":
    main()
