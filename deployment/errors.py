"""The failures of the service, one small tree, and the body an application sees for each.

    ServiceError
    ├── SettingsError          a setting is missing, unknown or out of range
    ├── MissingExtraError      a command needs a part of the installation that was left out
    ├── StartError             the service cannot start here (port taken, no ledger, no bundle)
    ├── WorkerDiedError        a thread without which a replica is of no use is gone
    ├── PartLostError          what the service stands on is gone, or is something else
    ├── RecomputationError     a booked response that cannot be attributed again from what was given
    ├── SpoolError             the local spool cannot be written or read (full disk, damaged file)
    └── ApiError               one HTTP answer that is not a success
        ├── InvalidRequestError     400  the request cannot be served as it is
        ├── UnauthenticatedError    401  no key, or one that is not known
        ├── ForbiddenError          403  a good key of another role
        ├── NotFoundError           404  no such route, model or response
        ├── UnsupportedMediaError   415  a body in a form that is not read here; says which one is
        ├── ConflictError           409  a request of this kind is under way, or was answered and cannot be again
        ├── UnprocessableError      422  a key that stands for another request
        ├── OverloadedError         429  every place is taken, or the key asks too often; says when to come back
        ├── QuotaError              429  the key's token budget does not cover this; asking again does not help
        ├── InternalError      500  our fault: nothing was booked
        └── UnavailableError        503  the model or the ledger is away for now

Knows nothing of FastAPI or Ray: `exception_handlers` turns these into answers, `messages` carries them between
processes.
"""

import traceback
from typing import ClassVar, TypedDict

RETRY_AFTER_S = 5
"""By then what was away is mostly back: a replica, an engine, the ledger, a folder."""


class Problem(TypedDict):
    """What went wrong, in OpenAI's shape."""

    message: str
    type: str
    param: str | None
    code: str | None


class Envelope(TypedDict):
    """OpenAI's error body."""

    error: Problem


def envelope(message: str, kind: str, *, param: str | None = None, code: str | None = None) -> Envelope:
    """OpenAI's error body: `{"error": {"message", "type", "param", "code"}}`, every field always present."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def log_text_of(error: BaseException) -> str:
    """What a log says of a failure within somebody's request: its class and where it came about.

    Not its message, which may quote the request, and prompts are in no log.
    """
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at {' < '.join(f'{frame.filename}:{frame.lineno}' for frame in reversed(frames))}"


class ServiceError(Exception):
    """Base of every error this package raises on purpose."""


class SettingsError(ServiceError):
    """A setting is missing, unknown or out of range; the message names it and where it came from."""


class MissingExtraError(ServiceError):
    """A command needs an extra that is not installed; the message says which."""


class StartError(ServiceError):
    """The service cannot start on this machine as it is set."""


class WorkerDiedError(ServiceError):
    """A thread without which nothing is generated, booked or sealed is gone, so this replica must be replaced."""


class PartLostError(ServiceError):
    """What the service stands on is gone, or is something else; `code` is the part's name and what became of it."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message, code)  # both, so that the error survives pickling
        self.code = code

    def __str__(self) -> str:
        return str(self.args[0])


class RecomputationError(ServiceError):
    """A booked response cannot be attributed again from what was given, or what was given is not that response."""


class SpoolError(ServiceError):
    """The local spool cannot be written or read; the message names the file and the reason."""


class ApiError(ServiceError):
    """One HTTP answer that is not a success: status, OpenAI error type, and what to name in the body."""

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "server_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
        should_retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s
        self.should_retry = should_retry

    @property
    def headers(self) -> dict[str, str]:
        """Headers of this answer: `Retry-After` in whole seconds, `x-should-retry` for SDKs, the scheme on 401."""
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        if self.should_retry is not None:
            headers["x-should-retry"] = str(self.should_retry).lower()
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers

    def body(self) -> Envelope:
        """The error in OpenAI's shape."""
        return envelope(self.message, self.kind, param=self.param, code=self.code)


class InvalidRequestError(ApiError):
    """400: the request cannot be served as it is."""

    status = 400
    kind = "invalid_request_error"


class UnauthenticatedError(ApiError):
    """401: no key was presented, or one that is not known or is revoked."""

    status = 401
    kind = "authentication_error"


class ForbiddenError(ApiError):
    """403: the key is good, but its role may not do this."""

    status = 403
    kind = "permission_error"


class NotFoundError(ApiError):
    """404: there is no such route, model or response for this key."""

    status = 404
    kind = "not_found_error"


class ConflictError(ApiError):
    """409: what is asked conflicts with how things stand."""

    status = 409
    kind = "conflict_error"


class UnsupportedMediaError(ApiError):
    """415: the body comes in a form that is not read here. `accept` is the header that says what would be."""

    status = 415
    kind = "invalid_request_error"

    def __init__(self, message: str, *, param: str, code: str, accept: tuple[str, str]) -> None:
        super().__init__(message, param=param, code=code)
        self._accept = accept

    @property
    def headers(self) -> dict[str, str]:
        """The header that says what would be read (RFC 9110, section 15.5.16)."""
        return {**super().headers, self._accept[0]: self._accept[1]}


class UnprocessableError(ApiError):
    """422: the request is well-formed, and contradicts an earlier one."""

    status = 422
    kind = "invalid_request_error"


class OverloadedError(ApiError):
    """429: every place in the batch and in the waiting queue is taken, or the key asks too often.

    Of a key `access.limits` decides that, and `access.concurrency`; of places `replica.capacity`, for long prompts
    `replica.prompt_encoding`, `gateway.replicas` where Serve has no room, and an engine by what
    `replica.engines.connection` reads.
    """

    status = 429
    kind = "rate_limit_error"


class QuotaError(ApiError):
    """429: what the key may still generate does not cover the request; nothing was generated.

    `access.limits` decides that.
    """

    status = 429
    kind = "insufficient_quota"


class InternalError(ApiError):
    """500: our own fault; nothing of the response was booked."""

    status = 500
    kind = "server_error"


class UnavailableError(ApiError):
    """503: the model or the ledger is away for now."""

    status = 503
    kind = "service_unavailable_error"


def ledger_away(message: str = "the ledger is away; try again") -> UnavailableError:
    """The refusal of whatever needs the ledger while it cannot be read."""
    return UnavailableError(message, code="ledger_unavailable", retry_after_s=RETRY_AFTER_S)
