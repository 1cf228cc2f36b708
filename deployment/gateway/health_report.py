"""What `GET /health` tells: each part of the service, and whether it can be relied on."""

import asyncio

from fastapi.responses import JSONResponse

from deployment.errors import UnavailableError
from deployment.gateway.request_handling import Engine
from deployment.health.faults import Watch
from deployment.replica.messages import ModelCard

MODEL = "model"
"""The part that is the replicas, with their bundle; one for each of several models. The others are the watch's."""
PUBLICATION = "publication"
"""The part that is there only where what was published last is not served: all the same the service answers."""


async def health_report(engine: Engine, watch: Watch) -> JSONResponse:
    """200 where all is well, or most; else 503, and an error in OpenAI's shape beside the parts."""
    names = engine.names
    answers = dict(zip(names, await asyncio.gather(*(_check(engine, name) for name in names)), strict=True))
    problems = {name: answer for name, answer in answers.items() if isinstance(answer, UnavailableError)}
    faults = {name: answer.fault for name, answer in answers.items() if isinstance(answer, ModelCard) and answer.fault}
    parts = {_part(MODEL, name, names): problems[name].message if name in problems else "ok" for name in names}
    parts |= watch.parts
    for problem in problems.values():
        part = (problem.code or "").rpartition("_")[0]
        if parts.get(part) == "ok":  # a replica, which looks for itself, saw it first
            parts[part] = problem.message
    parts |= {_part(PUBLICATION, name, names): fault for name, fault in faults.items()}
    worst = problems[names[0]] if len(problems) == len(names) else None
    try:
        watch.require()  # more telling than what comes of it
    except UnavailableError as error:
        worst = error
    if worst is None:
        return JSONResponse({"status": "degraded" if problems or faults else "ok", "parts": parts})
    body = {"status": "unavailable", "parts": parts, **worst.body()}
    return JSONResponse(body, status_code=worst.status, headers=worst.headers)


def _part(kind: str, name: str, names: tuple[str, ...]) -> str:
    return kind if len(names) == 1 else f"{kind} {name}"


async def _check(engine: Engine, name: str) -> ModelCard | UnavailableError:
    try:
        return await engine.check(name)
    except UnavailableError as error:
        return error
