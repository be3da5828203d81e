"""One exception tree, and the one error envelope that every failure wears.

    OpenAICompatError
    ├── ConfigurationError                 the start is refused; lists every problem at once
    ├── CallCancelledError                 the client left; nobody reads an answer
    ├── RequestError                       the client's to mend (4xx, logged at INFO)
    │   ├── PayloadError                   the body is not what the API takes
    │   ├── UnsupportedParameterError      a promise that this model cannot keep
    │   ├── AuthenticationError            no key of ours came with the request
    │   ├── RateLimitedError               this caller asks too often (429, with Retry-After): for hooks to raise
    │   ├── ModelNotFoundError
    │   ├── NotFoundError, MethodNotAllowedError, UnsupportedMediaTypeError, PayloadTooLargeError
    │   └── CapabilityError                this model cannot do that at all (501, never retried)
    └── BackendError                       not the client's fault (5xx, logged with its cause)
        ├── InternalError                  a fault of this server
        ├── ServerShuttingDownError        this server's process ends, and the call's time is up
        ├── OverloadedError                no place is free, and none became free in time
        ├── ModelBusyError                 too much at once: come again (503, with Retry-After)
        ├── ModelUnavailableError          the model cannot be had, and trying again is of no use (503)
        └── UpstreamError                  a fault beyond this server
            ├── UpstreamConnectionError    no connection, or it broke before an answer
            │   └── UpstreamNotConnectedError  no connection: nothing was sent
            ├── UpstreamTimeoutError       a time limit ran out
            ├── UpstreamCutError           the answer broke off or ended early
            ├── UpstreamReplyError         the answer cannot be understood
            ├── UpstreamAuthenticationError  the upstream refused the credential of *this server*
            └── UpstreamStatusError        the upstream answered with an error of its own, relayed

Backends raise these by name and know no status code; `status` is read by `web/errors.py` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar


def to_envelope(message: str, type_: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """OpenAI's error body: all four keys, always (source: the `Error` schema of OpenAI's API reference)."""
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}


class OpenAICompatError(Exception):
    """The root. `message` is safe to show to a client: no secret, no path, no traceback."""

    status: ClassVar[int | None] = 500
    """HTTP status; None where a setting decides it (`VALIDATION_ERROR_STATUS`, `UPSTREAM_ERROR_STATUS`)."""
    type: str = "server_error"
    code: str | None = None
    is_retryable: ClassVar[bool | None] = None
    """False tells the official clients not to try again (`x-should-retry: false`); None leaves it to them."""
    retry_after: int | None = None
    """Seconds after which trying again makes sense, where this server knows (the header `Retry-After`)."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code

    def to_envelope(self) -> dict[str, Any]:
        return to_envelope(self.message, self.type, self.param, self.code)


class ConfigurationError(OpenAICompatError):
    """The configuration is wrong. `problems` has one sentence for each thing to mend."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("the configuration is wrong:\n" + "\n".join(f"  - {problem}" for problem in self.problems))


class CallCancelledError(OpenAICompatError):
    """The client hung up, so the work for it was given up. 499 is nginx's word for it; only logs show it."""

    status = 499
    type = "request_cancelled"

    def __init__(self, message: str = "The client closed the connection before the answer was complete.") -> None:
        super().__init__(message)


class RequestError(OpenAICompatError):
    """A mistake in the request."""

    status: ClassVar[int | None] = 400
    type = "invalid_request_error"


class InvalidRequestError(RequestError):
    """The body is not what the API takes; `param` is the dotted path of the first thing that is wrong."""

    status = None


class UnsupportedParameterError(RequestError):
    """`param` asks for something that this model cannot do, so nothing was done."""

    code = "unsupported_parameter"

    def __init__(self, param: str, model: str, reason: str = "") -> None:
        detail = f": {reason}" if reason else "."
        super().__init__(
            f"Unsupported parameter: '{param}' is not supported with the model '{model}'{detail}", param=param
        )


class AuthenticationError(RequestError):
    status = 401
    code = "invalid_api_key"


class RateLimitedError(RequestError):
    """The caller has asked too much for now; `retry_after` is in seconds. For hooks to raise: nothing here counts."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelNotFoundError(RequestError):
    status = 404
    code = "model_not_found"

    def __init__(self, model: str, similar: str | None = None) -> None:
        hint = f" Did you mean '{similar}'?" if similar else ""
        super().__init__(f"The model '{model}' does not exist or you do not have access to it.{hint}", param="model")


class NotFoundError(RequestError):
    status = 404
    code = "unknown_url"


class MethodNotAllowedError(RequestError):
    status = 405
    code = "method_not_allowed"


class UnsupportedMediaTypeError(RequestError):
    status = 415
    code = "unsupported_media_type"


class RequestTooLargeError(RequestError):
    status = 413
    code = "request_too_large"


class CapabilityError(RequestError):
    """The model cannot do what the path asks, and never will: a 501 that says not to try again."""

    status = 501
    is_retryable = False


class BackendError(OpenAICompatError):
    """A failure that the client cannot mend."""


class InternalError(BackendError):
    """A fault of this server; the log has the cause, the client gets the request id to ask about."""

    code = "internal_error"

    def __init__(
        self, message: str = "The server had an error while processing your request. Sorry about that!"
    ) -> None:
        super().__init__(message)


class ServerShuttingDownError(BackendError):
    """The time that running calls get at a stop is up; another process, or this one anew, can be asked at once."""

    status = 503
    code = "server_shutting_down"
    retry_after = 1

    def __init__(self, message: str = "The server is shutting down, and the answer could not be completed.") -> None:
        super().__init__(message)


class OverloadedError(BackendError):
    """As many requests as may be are under way, and as many as may wait."""

    status = 503
    code = "server_overloaded"

    def __init__(
        self, retry_after: int = 1, message: str = "The server is busy with other requests. Please try again later."
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelBusyError(BackendError):
    """No room for this call now: a queue is full, a model is still loading. `retry_after` is in seconds."""

    status = 503
    code = "model_busy"

    def __init__(self, message: str, *, retry_after: int = 5, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class ModelUnavailableError(BackendError):
    """What a model needs is not there (its weights, a library, memory): for the operator to mend, not for a retry."""

    status = 503
    code = "model_unavailable"
    is_retryable = False


class UpstreamError(BackendError):
    """The server behind this one failed; the setting `UPSTREAM_ERROR_STATUS` decides the status (502)."""

    status: ClassVar[int | None] = None
    type = "upstream_error"


class UpstreamConnectionError(UpstreamError):
    code = "upstream_unreachable"


class UpstreamConnectError(UpstreamConnectionError):
    """There was no connection, so that nothing was sent: the call may be made again."""


class UpstreamTimeoutError(UpstreamError):
    code = "upstream_timeout"


class UpstreamTruncatedError(UpstreamError):
    code = "upstream_cut"


class UpstreamInvalidResponseError(UpstreamError):
    code = "upstream_bad_reply"


class UpstreamBusyError(UpstreamError):
    """This upstream has as many calls as it may have, and as many wait for it as may."""

    status = 503
    code = "upstream_overloaded"

    def __init__(
        self, retry_after: int = 1, message: str = "This model is busy with other requests. Please try again later."
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UpstreamAuthenticationError(UpstreamError):
    """The upstream does not take the key that this server holds: for its operator to mend, not for a retry."""

    code = "upstream_authentication_failed"
    is_retryable = False


class UpstreamStatusError(UpstreamError):
    """The upstream's own error, to be relayed: its status, its words, and when to come again.

    `upstream_status` is the status it sent; `headers` those of its reply headers that clients act upon.
    """

    def __init__(
        self,
        message: str,
        *,
        upstream_status: int,
        type_: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, param=param, code=code)
        self.upstream_status = upstream_status
        self.type = type_
        self.code = code
        self.headers = dict(headers or {})
