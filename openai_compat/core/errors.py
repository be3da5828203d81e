"""Exception hierarchy and OpenAI's error envelope.

    OpenAICompatError
    ├── ConfigurationError                   the settings or the models file are invalid
    ├── CallCancelledError                   the client disconnected
    ├── RequestError                         a mistake in the request (4xx, logged at INFO)
    │   ├── InvalidRequestError              the body fails validation
    │   ├── UnsupportedParameterError        the model does not support a parameter
    │   ├── ContextLengthExceededError       the prompt is longer than the model's context window (400)
    │   ├── AuthenticationError              the API key is missing or unknown (401)
    │   ├── ForbiddenError                   a page of another site or for another host sent the request (403)
    │   ├── RateLimitedError                 the caller exceeded a rate limit (429)
    │   │   ├── LimitExceededError           a limit of the caller's key, project or organization (429)
    │   │   └── BudgetExceededError          a budget of one of these (429)
    │   ├── PermissionDeniedError            the caller's key is not for this model or endpoint (403)
    │   ├── ModelNotFoundError               no model has this name (404)
    │   ├── NotFoundError                    no endpoint has this URL (404)
    │   ├── ObjectNotFoundError              the caller has no stored object with this id (404)
    │   ├── ConversationLockedError          another call uses the conversation (400)
    │   ├── PreviousResponseNotFoundError    no response with this id can be continued (400)
    │   ├── MethodNotAllowedError            the endpoint does not accept this method (405)
    │   ├── UnsupportedMediaTypeError        the content type or encoding is not accepted (415)
    │   ├── WebSocketError                   the client asks for a WebSocket (426)
    │   ├── RequestTooLargeError             the body exceeds its size limit (413)
    │   ├── RequestTimeoutError              the client sends the request too slowly (408)
    │   └── CapabilityError                  the model does not support the endpoint (501, not retryable)
    └── BackendError                         not the client's mistake (5xx, logged with its cause)
        ├── InternalError                    a defect of this server (500)
        ├── ServerShuttingDownError          the worker stopped before the answer was complete (503)
        ├── OverloadedError                  the server's request queue is full (503)
        ├── ModelBusyError                   the model has no capacity at the moment (503)
        ├── ModelUnavailableError            the model cannot be loaded (503, not retryable)
        ├── StorageUnavailableError          the database does not answer (503)
        │   └── StorageReadOnlyError         nothing can be stored (503, not retryable)
        ├── AccountsUnavailableError         keys, limits or budgets cannot be checked (503)
        └── UpstreamError                    the upstream failed (502)
            ├── UpstreamConnectionError      the connection failed before a response arrived
            │   └── UpstreamConnectError     the connection was never established
            ├── UpstreamTimeoutError         a timeout expired
            ├── UpstreamTruncatedError       the response ended early
            ├── UpstreamInvalidResponseError the response cannot be parsed
            ├── InvalidAnswerError           the model's answer is not what the request asked for
            ├── UpstreamBusyError            the upstream's request queue is full (503)
            ├── UpstreamAuthenticationError  the upstream rejected this server's credentials (not retryable)
            └── UpstreamStatusError          the upstream returned an error status, which is relayed

Backends raise these errors and know no status codes. Only `web/errors.py` reads `status`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil
from typing import Any, ClassVar, Final

from .shortening import shorten

MAX_MESSAGE_CHARS: Final = 4000
"""Length of a message about a request. It repeats names and values, which may have the length of the request."""
MAX_PARAM_CHARS: Final = 1000


def to_envelope(message: str, type_: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Return OpenAI's error body.

    All four keys are always present, as in the `Error` schema of OpenAI's API reference.
    """
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}


class OpenAICompatError(Exception):
    """Base class of all errors of this package.

    `message` is safe to show to a client. It contains no secret, no path and no traceback.
    """

    status: ClassVar[int | None] = 500
    """HTTP status, or None if a setting decides it (`VALIDATION_ERROR_STATUS`, `UPSTREAM_ERROR_STATUS`)."""
    type: str = "server_error"
    code: str | None = None
    is_retryable: bool | None = None
    """False tells the official clients not to retry (`x-should-retry: false`). None leaves the decision to them."""
    retry_after: int | None = None
    """Value of the header `Retry-After` in seconds, or None if unknown."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code

    def to_envelope(self) -> dict[str, Any]:
        """Return OpenAI's error body for this error."""
        return to_envelope(self.message, self.type, self.param, self.code)


class ConfigurationError(OpenAICompatError):
    """The settings or the models file are invalid.

    `problems` has one sentence per problem.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("the configuration is wrong:\n" + "\n".join(f"  - {problem}" for problem in self.problems))


class CallCancelledError(OpenAICompatError):
    """The client disconnected before the answer was complete.

    Status 499 is nginx's convention. It appears only in logs.
    """

    status = 499
    type = "request_cancelled"

    def __init__(self, message: str = "The client closed the connection before the answer was complete.") -> None:
        super().__init__(message)


class RequestError(OpenAICompatError):
    """The request contains a mistake. A long message and a long `param` are shortened."""

    status: ClassVar[int | None] = 400
    type = "invalid_request_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        short_param = None if param is None else shorten(param, MAX_PARAM_CHARS)
        super().__init__(shorten(message, MAX_MESSAGE_CHARS), param=short_param, code=code)


class InvalidRequestError(RequestError):
    """The body fails validation. `param` is the dotted path of the first invalid field."""

    status = None


class UnsupportedParameterError(RequestError):
    """The model does not support the parameter `param`, so the call was not made."""

    code = "unsupported_parameter"

    def __init__(self, param: str, model: str, reason: str = "") -> None:
        detail = f": {reason}" if reason else "."
        super().__init__(
            f"Unsupported parameter: '{param}' is not supported with the model '{model}'{detail}", param=param
        )


class ContextLengthExceededError(RequestError):
    """The prompt has more tokens than the model's context window, which is `limit`. The call was not made."""

    code = "context_length_exceeded"

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(f"prompt is too long: {tokens} tokens > {limit} maximum", param="messages")


class AuthenticationError(RequestError):
    """The API key is missing or unknown."""

    status = 401
    code = "invalid_api_key"


class ForbiddenError(RequestError):
    """A browser sent the request for a page of another site, or for a host that this server is not.

    `code` is `cross_site_request` or `unknown_host`.
    """

    status = 403


class RateLimitedError(RequestError):
    """The caller exceeded a rate limit and may retry after `retry_after` seconds.

    Hooks may raise it. `headers` are response headers about the limits.
    """

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.headers: Mapping[str, str] = {}


class LimitExceededError(RateLimitedError):
    """The call exceeds a limit of the caller's key, project or organization. It was not made.

    `wait` is the time in seconds after which it can be repeated, if `is_retryable` is not False.
    """

    def __init__(self, message: str, *, type_: str, wait: float = 1.0, is_retryable: bool | None = None) -> None:
        super().__init__(message, retry_after=max(ceil(wait), 1))
        self.type = type_
        self.is_retryable = is_retryable
        if is_retryable is False:
            self.retry_after = None


class BudgetExceededError(RateLimitedError):
    """The call may cost more than what is left of a budget. It was not made.

    With `is_held` other calls hold what is left, so that a retry may succeed once they have ended.
    """

    type = "insufficient_quota"
    code = "insufficient_quota"
    is_retryable: bool | None = False

    def __init__(self, *, is_held: bool) -> None:
        super().__init__(
            "The rest of the budget is reserved for calls that have not ended yet. Please try again in 1s."
            if is_held
            else "You exceeded your current quota, please check your plan and billing details."
        )
        if is_held:
            self.is_retryable = None
        else:
            self.retry_after = None


class PermissionDeniedError(RequestError):
    """The caller's key is valid, but not for this model or endpoint."""

    status = 403
    code = "permission_denied"


class ModelNotFoundError(RequestError):
    """No model has this name."""

    status = 404
    code = "model_not_found"

    def __init__(self, model: str, similar: str | None = None) -> None:
        hint = f" Did you mean '{similar}'?" if similar else ""
        super().__init__(f"The model '{model}' does not exist or you do not have access to it.{hint}", param="model")


class NotFoundError(RequestError):
    """No endpoint has this URL."""

    status = 404
    code = "unknown_url"


class ObjectNotFoundError(RequestError):
    """The caller has no stored object with this id. Objects of other callers count as absent."""

    status = 404


class ConversationLockedError(RequestError):
    """Another call uses the conversation. OpenAI answers with this status and code."""

    code = "conversation_locked"

    def __init__(self) -> None:
        super().__init__(
            "Another process is currently operating on this conversation. Please retry in a few seconds.",
            param="conversation",
        )


class PreviousResponseNotFoundError(RequestError):
    """`previous_response_id` is unknown to this server, but perhaps not to another target of the route.

    OpenAI answers with the status 400 and this code.
    """

    code = "previous_response_not_found"

    def __init__(self, id: str) -> None:
        super().__init__(f"Previous response with id '{id}' not found.", param="previous_response_id")


class MethodNotAllowedError(RequestError):
    """The endpoint does not accept this HTTP method."""

    status = 405
    code = "method_not_allowed"


class UnsupportedMediaTypeError(RequestError):
    """The endpoint does not accept this content type or content encoding."""

    status = 415
    code = "unsupported_media_type"


class WebSocketError(RequestError):
    """The client asks for a WebSocket, which this server does not offer."""

    status = 426
    code = "websocket_not_supported"

    def __init__(self) -> None:
        super().__init__(
            "WebSockets are not supported here. Send an HTTP request, with `stream: true` for server-sent events."
        )


class RequestTooLargeError(RequestError):
    """The body exceeds its size limit."""

    status = 413
    code = "request_too_large"


class RequestTimeoutError(RequestError):
    """The client sends the request too slowly."""

    status = 408
    code = "request_timeout"


class CapabilityError(RequestError):
    """The model does not support this endpoint, so a retry cannot succeed."""

    status = 501
    is_retryable = False


class BackendError(OpenAICompatError):
    """The call failed for a reason that the client cannot correct."""


class InternalError(BackendError):
    """This server has a defect. The log has the cause, and the client gets the request id."""

    code = "internal_error"

    def __init__(
        self, message: str = "The server had an error while processing your request. Sorry about that!"
    ) -> None:
        super().__init__(message)


class ServerShuttingDownError(BackendError):
    """The worker stopped before the answer was complete. Another worker can answer a retry at once."""

    status = 503
    code = "server_shutting_down"
    retry_after = 1

    def __init__(self, message: str = "The server is shutting down, and the answer could not be completed.") -> None:
        super().__init__(message)


class OverloadedError(BackendError):
    """The server has no capacity for this request, and its queue is full or the wait timed out."""

    status = 503
    code = "server_overloaded"

    def __init__(
        self, retry_after: int = 1, message: str = "The server is busy with other requests. Please try again later."
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelBusyError(BackendError):
    """The model has no capacity at the moment and may have some after `retry_after` seconds.

    Its queue is full, or it is still loading.
    """

    status = 503
    code = "model_busy"

    def __init__(self, message: str, *, retry_after: int = 5, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class ModelUnavailableError(BackendError):
    """The model cannot be loaded until the operator provides its weights, a library or memory."""

    status = 503
    code = "model_unavailable"
    is_retryable = False


class StorageUnavailableError(BackendError):
    """The database does not answer, so nothing can be stored or read. Calls that need no state go on."""

    status = 503
    code = "storage_unavailable"
    retry_after: int | None = 5

    def __init__(
        self, message: str = "Stored objects are not available at the moment. Please try again later."
    ) -> None:
        super().__init__(message)


class StorageReadOnlyError(StorageUnavailableError):
    """The server has no directory that it can write to, so nothing can be stored until the operator provides one."""

    code = "storage_read_only"
    retry_after = None
    is_retryable = False

    def __init__(self) -> None:
        super().__init__("This server cannot store objects, because its data directory cannot be written.")


class AccountsUnavailableError(BackendError):
    """Keys, limits or budgets cannot be checked, so that the call is not made."""

    status = 503
    code = "accounts_unavailable"
    retry_after = 5

    def __init__(self) -> None:
        super().__init__("API keys and limits cannot be checked at the moment. Please try again later.")


class UpstreamError(BackendError):
    """The upstream failed. The setting `UPSTREAM_ERROR_STATUS` decides the status (502)."""

    status: ClassVar[int | None] = None
    type = "upstream_error"


class UpstreamConnectionError(UpstreamError):
    """The connection to the upstream failed before a response arrived."""

    code = "upstream_unreachable"


class UpstreamConnectError(UpstreamConnectionError):
    """The connection to the upstream was never established.

    No part of the request was sent, so a retry is safe.
    """


class UpstreamTimeoutError(UpstreamError):
    """A timeout of the call to the upstream expired."""

    code = "upstream_timeout"


class UpstreamTruncatedError(UpstreamError):
    """The upstream's response ended early."""

    code = "upstream_cut"


class UpstreamInvalidResponseError(UpstreamError):
    """The upstream's response cannot be parsed."""

    code = "upstream_bad_reply"


class InvalidAnswerError(UpstreamError):
    """The model's answer breaks the form that the request asked for. Another attempt may give a better one."""

    code = "invalid_model_answer"


class UpstreamBusyError(UpstreamError):
    """The upstream has no capacity for this call, and its queue is full or the wait timed out."""

    status = 503
    code = "upstream_overloaded"

    def __init__(
        self, retry_after: int = 1, message: str = "This model is busy with other requests. Please try again later."
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UpstreamAuthenticationError(UpstreamError):
    """The upstream rejected the credentials of this server, which its operator must correct."""

    code = "upstream_authentication_failed"
    is_retryable = False


class UpstreamStatusError(UpstreamError):
    """The upstream returned an error status.

    Its message, type, code and `upstream_status` are relayed to the client, and so are `headers`, the response
    headers about retries. `is_within_answer` is True if the error arrived in an answer of status 200, so that the
    upstream may have processed the call.
    """

    is_within_answer = False

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
