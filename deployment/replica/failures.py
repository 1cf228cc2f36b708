"""What an application is told of a response that does not finish, and how an end is counted. Knows not when."""

import logging

from attribution.errors import ContextLengthError, PromptError
from deployment.errors import RETRY_AFTER_S, ledger_away, log_text_of
from deployment.replica.engines.errors import EngineError
from deployment.replica.messages import Event, Failed, Finished, Job

_LOG = logging.getLogger(__name__)


def failure_of(job: Job, error: Exception) -> Failed:
    """What an application is told of a failure in its own row: 400 where its request is at fault, else 500."""
    if isinstance(error, PromptError):
        code = "context_length_exceeded" if isinstance(error, ContextLengthError) else "invalid_value"
        param = "prompt" if not isinstance(job.prompt, tuple) and error.parameter == "messages" else error.parameter
        return Failed(400, str(error), code, param)
    if isinstance(error, EngineError):
        _LOG.error("response %s fails: %s", job.response_id, error)
        return Failed(
            error.status, str(error), error.code, retry_after_s=error.retry_after_s, hopeless=error.status == 500
        )
    _LOG.error("response %s fails: %s", job.response_id, log_text_of(error))
    message = "this response failed, and no other; the same request may fail again, so it is not to be repeated at once"
    return Failed(500, message, "response_failed", hopeless=True)


def attribution_failure(*, credited: bool) -> Failed:
    """A response that no score can be had of, or none that is a number."""
    message = "the response could not be attributed, so it is withheld"
    return Failed(500, message, "attribution_failed", credited=credited, hopeless=True)


def overload_failure(why: str, retry_after_s: int) -> Failed:
    """A job for which there is no place, and in how many seconds there is likely to be one."""
    return Failed(429, f"{why}; try again in {retry_after_s} s", "overloaded", retry_after_s=retry_after_s)


def stop_failure() -> Failed:
    """A job that the end of the replica cut, or that came after it."""
    return Failed(
        503, "the model is stopping or was restarted; try again", "engine_unavailable", retry_after_s=RETRY_AFTER_S
    )


def ledger_failure() -> Failed:
    """A response of which the ledger, which is away, would have to say whether it is measured."""
    away = ledger_away()
    assert away.code is not None
    return Failed(away.status, away.message, away.code, retry_after_s=away.retry_after_s)


def disk_failure() -> Failed:
    """A stream whose progress cannot be spooled."""
    return Failed(503, "the disk for receipts cannot be written, so the response ends here", "ledger_unavailable")


def outcome(event: Event | None) -> str:
    """How an end is counted; None is that of a job whose caller has gone."""
    match event:
        case None:
            return "cancelled"
        case Finished():
            return "finished"
        case Failed(status=400 | 429):
            return "refused"
        case _:
            return "failed"
