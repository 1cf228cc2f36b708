"""Peak memory of attribution over a consortium, in a process of its own: prints one JSON line.

`python -m tests.benchmarks.memory BUNDLE TOKENS`. Counts private memory (RssAnon of proc(5)), which cannot be given
back, sampled every millisecond; pages mapped from update files are the page cache's, but the model's own count.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from attribution.evaluation.experiments.cost import generate_attributed
from attribution.model import FederatedModel


def measured_memory(bundle: Path, tokens: int) -> dict[str, float]:
    """Bytes of the served model and of the low-rank updates, and the peaks of each way to attribute."""
    command = [sys.executable, "-m", "tests.benchmarks.memory", str(bundle), str(tokens)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


def peak_private_bytes(work: Callable[[], object]) -> int:
    """The most private memory this process had while `work` ran."""
    done, peak = threading.Event(), [_private_bytes()]

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], _private_bytes())
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        work()
    finally:
        done.set()
        thread.join()
    return peak[0]


def _private_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no RssAnon; this benchmark needs Linux")


def main() -> None:
    """Load, attribute, and print what it took beyond the interpreter and its libraries."""
    before = _private_bytes()
    model = FederatedModel.load(Path(sys.argv[1]))
    weights = sum(value.numel() * value.element_size() for value in model.network.parameters())
    factors = sum(
        4 * (low_rank.A.numel() + low_rank.B.numel())
        for updates in (model.bundle.updates, model.bundle.last_round)
        for update in updates.values()
        for low_rank in update.low_rank.values()
    )
    loaded = _private_bytes() - before
    mapped = max(0, weights - loaded)  # weights that are mapped from their file rather than copied
    tokens = int(sys.argv[2])
    peaks = {
        "response": peak_private_bytes(lambda: generate_attributed(model, tokens)),
        "token": peak_private_bytes(lambda: generate_attributed(model, tokens, token_level=True)),
    }
    figures = {"weights": weights, "factors": factors, "loaded": loaded}
    print(json.dumps(figures | {name: peak - before + mapped for name, peak in peaks.items()}))


if __name__ == "__main__":
    main()
