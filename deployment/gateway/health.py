"""What `GET /health` tells: each part of the service, and whether it can be relied on."""

from fastapi.responses import JSONResponse

from deployment.errors import UnavailableError
from deployment.gateway.answers import Engine
from deployment.health.watch import Watch

MODEL = "model"
"""The part that is the replicas; the others are those of the watch."""


async def health_answer(engine: Engine, watch: Watch) -> JSONResponse:
    """200 where all is well; else 503, and an error in OpenAI's shape beside the parts."""
    parts: dict[str, str] = {MODEL: "ok", **watch.parts}
    problem: UnavailableError | None = None
    try:
        await engine.check()
    except UnavailableError as error:
        parts[MODEL], problem = error.message, error
        part = (error.code or "").rpartition("_")[0]
        if parts.get(part) == "ok":  # a replica, which looks for itself, saw it first
            parts[part] = error.message
    try:
        watch.require()  # more telling than what comes of it
    except UnavailableError as error:
        problem = error
    if problem is None:
        return JSONResponse({"status": "ok", "parts": parts})
    body = {"status": "unavailable", "parts": parts, **problem.body()}
    return JSONResponse(body, status_code=problem.status, headers=problem.headers)
