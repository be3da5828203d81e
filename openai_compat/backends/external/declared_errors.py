"""What an external API's error means, by what its row declares; what it does not declare, `external_errors` judges."""

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
from .expressions import Expression, Watch, first_value

STANDARDS: Final[Mapping[str, tuple[int, str, str | None]]] = {
    "rate_limit": (429, "rate_limit_error", "rate_limit_exceeded"),
    "bad_input": (400, "invalid_request_error", None),
    "overload": (503, "server_error", "overloaded"),
}
"""class -> (status, type, code) as OpenAI has them."""
MAX_RETRY_AFTER: Final = 86_400
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class ErrorReader:
    """Makes the exceptions of one row's errors."""

    def __init__(self, entry: ModelConfig, declaration: ErrorsDeclaration | None) -> None:
        self._entry = entry
        self._declaration = declaration or ErrorsDeclaration()
        self.trace: Watch | None = None

    def to_error(self, status: int | None, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> UpstreamError:
        """The error that a reply stands for: its `status`, or the one that an error within an answer of status 200
        names, if it does; the beginning of its body; its headers.
        """
        content = parse_error(body)
        code = first_value(self._find("code", self._declaration.code, content))
        words = self._find_words(content)
        retry = {**retry_headers(headers), **self._find_retry_after(content, headers)}
        found = self._class_of(status, code)
        if found == "authentication":
            return UpstreamAuthenticationError("The external API refused this server's credential.")
        if found is None:
            named = status if status is not None or not isinstance(code, int) else code
            told = json.dumps({"message": words}).encode() if self._declaration.message and words else body
            does = f"answered {status}" if status else "reported an error"
            return to_external_error(self._entry, named, told, retry, does)
        standard, type_, standard_code = STANDARDS[found]
        message = words or f"The external API reported an error ({found.replace('_', ' ')})."
        given = redact_message(str(code), self._entry) if isinstance(code, str) else standard_code
        return UpstreamStatusError(message, upstream_status=standard, type_=type_, code=given, headers=retry)

    def _class_of(self, status: int | None, code: Any) -> str | None:
        """Codes say more than statuses. One is the same as a number and as a text."""
        classes = self._declaration.classes
        by_code = (name for name, values in classes.items() if code is not None and str(code) in map(str, values))
        by_status = (name for name, values in classes.items() if status in values)
        return next(by_code, None) or next(by_status, None)

    def _find_words(self, content: Any) -> str:
        place = self._declaration.message
        return redact_message(find_message(self._find("message", place, content) if place else content), self._entry)

    def _find_retry_after(self, content: Any, headers: Mapping[str, str]) -> dict[str, str]:
        """`Retry-After` in whole seconds, rounded up: whoever comes too early is sent away again."""
        place = self._declaration.retry_after
        found = first_value(self._find("retry_after", place.path, content))
        if place.header:
            found = headers.get(place.header)
        try:
            seconds = float(found or "") * place.factor
        except (TypeError, ValueError):
            return {}
        return {"retry-after": str(math.ceil(seconds))} if 0 <= seconds <= MAX_RETRY_AFTER else {}

    def _find(self, what: str, expression: Expression | None, content: Any) -> Any:
        """What the expression finds; `trace` is told."""
        found = None if expression is None else expression.find(content)
        if expression is not None and self.trace is not None:
            self.trace(f"errors.{what}", expression, found)
        return found
