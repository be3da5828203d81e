"""Mapping of an external API's errors by its declaration. Errors without a declared class go to `errors.py`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from openai_compat.backends.parsing.openai_errors import retry_headers
from openai_compat.core.errors import UpstreamAuthenticationError, UpstreamError, UpstreamStatusError
from openai_compat.core.settings import ModelConfig

from .declaration import ErrorsDeclaration
from .errors import find_message, parse_error, redact_message, to_external_error
from .expressions import Expression, TraceCallback, first_value

OPENAI_ERRORS: Final[Mapping[str, tuple[int, str, str | None]]] = {
    "rate_limit": (429, "rate_limit_error", "rate_limit_exceeded"),
    "bad_input": (400, "invalid_request_error", None),
    "overload": (503, "server_error", "overloaded"),
}
"""OpenAI's status, type and code of each error class."""
MAX_RETRY_AFTER: Final = 86_400
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class ErrorReader:
    """Converter of one API's errors to exceptions."""

    def __init__(self, entry: ModelConfig, declaration: ErrorsDeclaration | None) -> None:
        self._entry = entry
        self._declaration = declaration or ErrorsDeclaration()
        self.trace: TraceCallback | None = None

    def to_error(self, status: int | None, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> UpstreamError:
        """Return the exception for an error.

        `status` is that of the reply. For an error in a reply of status 200 it is the status that the error names, or
        None. `body` is the beginning of the body.
        """
        content = parse_error(body)
        code = first_value(self._find("code", self._declaration.code, content))
        message = self._find_message(content)
        retry = {**retry_headers(headers), **self._find_retry_after(content, headers)}
        error_class = self._class_of(status, code)
        if error_class == "authentication":
            return UpstreamAuthenticationError("The external API refused this server's credential.")
        if error_class is None:
            reported_status = status if status is not None or not isinstance(code, int) else code
            content_body = json.dumps({"message": message}).encode() if self._declaration.message and message else body
            event = f"answered {status}" if status else "reported an error"
            return to_external_error(self._entry, reported_status, content_body, retry, event)
        openai_status, type_, openai_code = OPENAI_ERRORS[error_class]
        return UpstreamStatusError(
            message or f"The external API reported an error ({error_class.replace('_', ' ')}).",
            upstream_status=openai_status,
            type_=type_,
            code=redact_message(str(code), self._entry) if isinstance(code, str) else openai_code,
            headers=retry,
        )

    def _class_of(self, status: int | None, code: Any) -> str | None:
        """Return the declared class of a code, else of a status. A code matches as a number and as a string."""
        classes = self._declaration.classes
        by_code = (name for name, values in classes.items() if code is not None and str(code) in map(str, values))
        by_status = (name for name, values in classes.items() if status in values)
        return next(by_code, None) or next(by_status, None)

    def _find_message(self, content: Any) -> str:
        path = self._declaration.message
        return redact_message(find_message(self._find("message", path, content) if path else content), self._entry)

    def _find_retry_after(self, content: Any, headers: Mapping[str, str]) -> dict[str, str]:
        """Return `Retry-After` in whole seconds, rounded up because a retry that is too early fails again."""
        source = self._declaration.retry_after
        found = first_value(self._find("retry_after", source.path, content))
        if source.header:
            found = headers.get(source.header)
        try:
            seconds = float(found or "") * source.factor
        except (TypeError, ValueError):
            return {}
        return {"retry-after": str(math.ceil(seconds))} if 0 <= seconds <= MAX_RETRY_AFTER else {}

    def _find(self, key: str, expression: Expression | None, content: Any) -> Any:
        """Return what the expression finds, and report it to `trace`."""
        found = None if expression is None else expression.find(content)
        if expression is not None and self.trace is not None:
            self.trace(f"errors.{key}", expression, found)
        return found
