"""Raw requests in the log, for debugging, with secrets masked (`LOG_REQUEST_BODIES`).

A body is taken apart as far as masking needs it, whole or cut off: it need not be JSON. Every expression here takes
time in proportion to the body, whatever is in it.
"""

from __future__ import annotations

import logging
import re
from typing import Final

log = logging.getLogger(__name__)

MAX_LOGGED_CHARS: Final = 20_000
MASK: Final = "***"

_TELLING_NAMES = (
    r"(?:api|access|private|secret|account|auth)[_-]?keys?|\bx[_-]key"
    r"|secret|authorization|credential|passw|pwd|cookie"
)
_COUNTED_NAME = "token"
"""Its numbers are no secrets: `max_tokens`."""

_JSON_PART = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}:,]|[^\s"\[\]{}:,]+', re.DOTALL)
_SECRET_NAME = re.compile(_TELLING_NAMES, re.IGNORECASE)

# `name=value`, `name: value` and, within a string, `\"name\": \"value\"`. A name has few characters behind the word
# that gives it away; without that bound, a long row of such words would be gone through again from each of them.
_ASSIGNMENT = r"[\w-]{0,40}(?:\\+[\"'])?\s{0,8}[=:]\s{0,8}(?:(?:basic|bearer|digest)\s{1,8})?"
_VALUE = r"(?:\\+\"[^\"\\]*|'[^'\n]*|[^\s\"'\\&,;]+)"
_SECRET_ASSIGNMENT = re.compile(rf"((?:{_TELLING_NAMES}){_ASSIGNMENT}){_VALUE}", re.IGNORECASE)
_COUNTED_ASSIGNMENT = re.compile(
    rf"({_COUNTED_NAME}{_ASSIGNMENT})(?!(?:[\d.]+|null|none|true|false)(?![\w.-])){_VALUE}", re.IGNORECASE
)
# A token is looked for from its beginning only: within a long word each place could be one.
_SECRET_WORD = re.compile(
    r"(?<![\w-])(?:sk-|hf_|dapi|gh[a-z]_|github_pat_|glpat-|xox[a-z]-|AIza|Bearer\s{1,8})[\w.-]{8,}"
    r"|(?<![\w-])A[KS]IA[A-Z0-9]{12,}"
    r"|(?<![\w-])eyJ[\w-]{4,}\.[\w-]+\.[\w-]*",
    re.IGNORECASE,
)
_URL_CREDENTIALS = re.compile(r"(://)[^\s/\"\\]+(?=@)")


def log_request_body(body: bytes) -> None:
    """Logs the beginning of a body that the server has read. What is passed through is not read, and not logged."""
    log.info("request body: %s", redact(body[:MAX_LOGGED_CHARS].decode("utf-8", "replace")))


def redact(text: str) -> str:
    """`text` with whatever looks like a key or token replaced by asterisks."""
    text = _JSON_PART.sub(_FieldMasker(), text)
    for expression in (_SECRET_ASSIGNMENT, _COUNTED_ASSIGNMENT, _URL_CREDENTIALS):
        text = expression.sub(rf"\1{MASK}", text)
    return _SECRET_WORD.sub(MASK, text)


class _FieldMasker:
    """Replaces the values of JSON's secret fields, arrays and objects with all that is in them; one for each text."""

    def __init__(self) -> None:
        self._name = ""
        self._is_value = False
        self._depth = 0
        self._masks_numbers = False

    def __call__(self, match: re.Match[str]) -> str:
        part = match[0]
        if self._is_value or self._depth:
            return self._in_secret(part)
        if part == ":":
            self._masks_numbers = _SECRET_NAME.search(self._name) is not None
            self._is_value = self._masks_numbers or _COUNTED_NAME in self._name.lower()
        self._name = part if part.startswith('"') else ""
        return part

    def _in_secret(self, part: str) -> str:
        self._is_value = False
        if part in {"[", "{"}:
            self._depth += 1
        elif part in {"]", "}"}:
            self._depth = max(self._depth - 1, 0)
        elif part.startswith('"'):
            return f'"{MASK}"'
        elif self._masks_numbers and part not in {":", ",", "null"}:
            return MASK
        return part
