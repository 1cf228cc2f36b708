"""Runs experiments from their YAML files: case by case, resumable, every case's rows and the result stored as JSON.

A case is found again by a hash of all that decides its rows, so a restart goes on where it stopped, and a changed
setting, model or data file starts anew. Does not know any experiment.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from attribution.attribute import VERSION
from attribution.errors import RecipeError
from attribution.evaluation.catalogue import CATALOGUE
from attribution.evaluation.experiment import ResultRows, Settings
from attribution.evaluation.harness import Harness
from attribution.evaluation.results import Result
from attribution.files.strict import StrictDocument
from attribution.files.untrusted import JsonObject, first_problem, read_yaml

Profile = Literal["full", "quick"]


class Plan(StrictDocument):
    """One experiment's YAML file: what it asks, its settings in full, and what the quick profile changes."""

    experiment: str
    title: str
    question: str
    full: JsonObject = Field(default_factory=dict)
    quick: JsonObject = Field(default_factory=dict)

    def settings(self, profile: Profile, folder: Path) -> Settings:
        """The validated settings of a profile; paths in them are relative to `folder`."""
        chosen = self.full if profile == "full" else _merge(self.full, self.quick)
        if "public" in chosen:
            chosen = {**chosen, "public": folder / chosen["public"]}
        return CATALOGUE[self.experiment].settings.model_validate(chosen)


def load_plan(path: Path) -> Plan:
    """Read and validate one experiment's file, its settings for both profiles included.

    Raises:
        RecipeError: naming the file and the field.
    """
    try:
        plan = Plan.model_validate(read_yaml(path, RecipeError))
        if plan.experiment not in CATALOGUE:
            raise RecipeError(f"{path}: experiment {plan.experiment!r} is not one of {', '.join(CATALOGUE)}")
        for profile in ("full", "quick"):
            plan.settings(profile, path.parent)
    except ValidationError as error:
        raise RecipeError(f"{path}: {first_problem(error)}") from error
    return plan


def run_plan(path: Path, profile: Profile, harness: Harness, results: Path, announce: Callable[[str], None]) -> Result:
    """Run what is left of the experiment's cases, and store and return its result.

    `results` gets `{experiment}.json`; the rows of finished cases stay in the harness's folder.
    """
    plan = load_plan(path)
    experiment, settings = CATALOGUE[plan.experiment], plan.settings(profile, path.parent)
    rows: dict[str, ResultRows] = {}
    seconds = 0.0
    for case in experiment.cases(settings, harness):
        file = harness.folder / "cases" / f"{_fingerprint(experiment.run, settings, harness, case)}.json"
        if file.is_file():
            announce(f"{plan.experiment} {case}: done before")
        else:
            announce(f"{plan.experiment} {case}")
            started = time.monotonic()
            case_rows = experiment.run(case, settings, harness)
            _store(file, {"case": case, "seconds": time.monotonic() - started, "rows": case_rows})
        stored = json.loads(file.read_text(encoding="utf-8"))
        rows[case], seconds = stored["rows"], seconds + stored["seconds"]
    summary = experiment.summarise(settings, rows)
    result = Result(
        experiment=plan.experiment,
        title=plan.title,
        question=plan.question,
        profile=profile,
        model=harness.label or harness.base,
        data={name: domain.sha256 for name, domain in harness.domains.items()},
        seeds=list(settings.seeds),
        coverage=summary.coverage,
        settings=settings.model_dump(mode="json"),
        version=VERSION,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=seconds,
        figures=summary.figures,
        plots=summary.plots,
        notes=summary.notes,
    )
    _store(results / f"{plan.experiment}.json", result.model_dump(mode="json"))
    return result


def load_results(folder: Path) -> list[Result]:
    """Every stored result in `folder`, in the order of the experiments' numbers."""
    stored = [file for file in folder.glob("E*.json") if file.stem in CATALOGUE]
    ordered = sorted(stored, key=lambda file: list(CATALOGUE).index(file.stem))
    return [Result.model_validate_json(file.read_text(encoding="utf-8")) for file in ordered]


def _merge(full: JsonObject, changes: JsonObject) -> JsonObject:
    merged = dict(full)
    for name, value in changes.items():
        old = merged.get(name)
        merged[name] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _fingerprint(run: Callable[..., ResultRows], settings: Settings, harness: Harness, case: str) -> str:
    module = run.__module__.rsplit(".", 1)[-1]  # wherever it lies: a move computes nothing again
    document = {
        "run": f"attribution.evaluation.{module}.{run.__qualname__}",
        "settings": settings.model_dump(mode="json", exclude={"seeds"}),
        "base": harness.base_sha256,
        "data": {name: domain.sha256 for name, domain in harness.domains.items()},
        "version": VERSION,
        "case": case,
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:24]


def _store(file: Path, document: object) -> None:
    """Write JSON so that a reader finds the whole of it or nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    unfinished.replace(file)
