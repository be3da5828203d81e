"""What OpenAI says when it refuses: the error envelope, and the usual type, code and message of each status."""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]

# status -> (type, code, message), as OpenAI words them
_USUAL = {
    400: ("invalid_request_error", None, "Invalid request."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided: sk-mock."),
    403: ("request_forbidden", "unsupported_country_region_territory", "Country, region, or territory not supported"),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    408: ("timeout_error", None, "Request timed out."),
    409: ("invalid_request_error", None, "The request conflicts with the state of the resource."),
    413: ("invalid_request_error", "request_too_large", "The request body is too large."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests. Please try again in 1s."),
    500: ("server_error", None, "The server had an error while processing your request. Sorry about that!"),
    503: ("server_error", None, "The server is currently overloaded. Please try again later."),
}


class ApiError(Exception):
    """A refusal: an HTTP status with OpenAI's error envelope. What is not given is what OpenAI usually says."""

    def __init__(
        self, status: int, message: str = "", *, kind: str = "", param: str | None = None, code: str = ""
    ) -> None:
        """Fill in type, code and message from the status, unless a message is given."""
        usual_kind, usual_code, usual_message = _USUAL.get(status, _USUAL[500 if status >= 500 else 400])
        super().__init__(message or usual_message)
        self.status = status
        self.kind = kind or usual_kind
        self.param = param
        self.code = code or (None if message else usual_code)
        self.headers: dict[str, str] = {}

    def to_envelope(self) -> Json:
        """Return the JSON object, keys in OpenAI's order."""
        error = {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}

    def to_bytes(self) -> bytes:
        """Return the envelope as OpenAI prints it."""
        return json.dumps(self.to_envelope(), indent=4, ensure_ascii=False).encode()


def missing_parameter(name: str) -> ApiError:
    """Return the refusal of a body without the parameter `name`."""
    return ApiError(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
