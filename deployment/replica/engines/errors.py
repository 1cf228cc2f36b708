"""What an engine does wrong, and what an application is told of it. Each is of one response, and of no other."""

from typing import Literal

from deployment.errors import RETRY_AFTER_S, ServiceError


class EngineError(ServiceError):
    """An engine did not make a response.

    Attributes:
        status: what the application is answered with.
        code: of that answer.
        retry_after_s: when it may ask again.
        may_pass: whether the same request, sent again at once, may well be answered.
    """

    def __init__(
        self,
        message: str,
        *,
        status: Literal[400, 429, 500, 503] = 503,
        code: str = "engine_unavailable",
        retry_after_s: int | None = None,
        may_pass: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s
        self.may_pass = may_pass


def away(message: str = "the engine does not answer; try again", *, may_pass: bool = True) -> EngineError:
    """An engine that is not there, for now."""
    return EngineError(message, retry_after_s=RETRY_AFTER_S, may_pass=may_pass)


def breach(what: str) -> EngineError:
    """An engine that answers otherwise than the protocol has it, so that what it says cannot be attributed."""
    return EngineError(f"the engine's answer cannot be used: {what}", status=500, code="engine_failed")
