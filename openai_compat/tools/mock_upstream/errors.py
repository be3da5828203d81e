"""The error envelopes of OpenAI and Anthropic, with the default type, code and message for each status."""

from __future__ import annotations

import json
from typing import Any

from openai_compat.core.anthropic import error_type_of

Json = dict[str, Any]

# status -> (type, code, message), in OpenAI's words
_DEFAULTS = {
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
    529: ("server_error", None, "Overloaded"),
}


class ApiError(Exception):
    """An error response with OpenAI's envelope."""

    def __init__(
        self, status: int, message: str = "", *, error_type: str = "", param: str | None = None, code: str = ""
    ) -> None:
        """Use OpenAI's defaults for this status where no message, type or code is given.

        The default code belongs to the default message and is omitted with another one.
        """
        default_type, default_code, default_message = _DEFAULTS.get(status, _DEFAULTS[500 if status >= 500 else 400])
        super().__init__(message or default_message)
        self.status = status
        self.type = error_type or default_type
        self.param = param
        self.code = code or (None if message else default_code)
        self.headers: dict[str, str] = {}

    def to_envelope(self) -> Json:
        """Return the JSON object with its keys in OpenAI's order."""
        error = {"message": str(self), "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}

    def to_anthropic_envelope(self) -> Json:
        """Return the JSON object of the Messages API."""
        return {
            "type": "error",
            "error": {"type": error_type_of(self.status), "message": str(self)},
            "request_id": "req_mock",
        }

    def to_bytes(self, *, is_anthropic: bool = False) -> bytes:
        """Return the envelope as JSON, indented as OpenAI does."""
        envelope = self.to_anthropic_envelope() if is_anthropic else self.to_envelope()
        return json.dumps(envelope, indent=4, ensure_ascii=False).encode()


def missing_parameter(name: str) -> ApiError:
    """Return the error for a body without the parameter `name`."""
    return ApiError(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
