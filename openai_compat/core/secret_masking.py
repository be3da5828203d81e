"""Masking of what looks like a secret in the bodies of requests and answers."""

from __future__ import annotations

import json
import re
from typing import Any, Final

MAX_PARSED_BYTES: Final = 256 * 1024
"""Larger bodies are logged by their size alone. The search for secrets reads 5 MB/s and delays all other requests."""
MAX_LOGGED_CHARS: Final = 20_000
MASK: Final = "***"

_NAMES = (
    r"(?:api|access|private|secret|account|auth|subscription)[_-]?keys?|\bx[_-]key"
    r"|secret|authorization|credential|pass(?:w|phrase)|pwd|cookie"
)
_SECRET_NAME = re.compile(_NAMES, re.IGNORECASE)
# Repetitions are bounded, so that the search takes time in proportion to the text.
_ASSIGNED = r"[\w-]{0,40}\W{0,8}[=:]"
_SECRET_TEXT = re.compile(
    rf"(?:{_NAMES}){_ASSIGNED}"
    rf"|token{_ASSIGNED}(?!\W{{0,8}}[\d.]{{1,20}}(?![\w.-]))"  # a number is no secret: `max_tokens=100`
    r"|(?<![\w-])(?:sk-|hf_|dapi|gh[a-z]_|github_pat_|glpat-|xox[a-z]-|AIza|eyJ|A[KS]IA|Bearer\s{1,8})[\w.-]{8}"
    r"|://[^\s/]{0,200}@"
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY",
    re.IGNORECASE,
)


def redact(body: bytes) -> str:
    """Return the JSON in `body` with secrets masked, or only the size of a body that is too large or not JSON.

    Values of fields that name a secret are masked, and the rest of a text from the first thing that looks like one.
    """
    if len(body) > MAX_PARSED_BYTES:
        return f"({len(body)} bytes)"
    try:
        value = _mask(json.loads(body, object_pairs_hook=_mask_fields))
        return json.dumps(value, ensure_ascii=False)[:MAX_LOGGED_CHARS]
    except (ValueError, RecursionError):
        return f"({len(body)} bytes that are not valid JSON)"


def redact_text(text: str) -> str:
    """Return a text that is no complete JSON, up to the first thing that looks like a secret."""
    return str(_mask(text))


def _mask_fields(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    return {_mask(name): MASK if _is_secret(name, value) else _mask(value) for name, value in fields}


def _is_secret(name: str, value: Any) -> bool:
    """Return True if a field holds a secret. Numbers under names such as `max_tokens` are counts."""
    return bool(_SECRET_NAME.search(name)) or ("token" in name.lower() and isinstance(value, str | list | dict))


def _mask(value: Any) -> Any:
    """Mask secrets in texts and in lists of texts. The fields of objects have been masked by `_mask_fields`."""
    if isinstance(value, list):
        return [_mask(item) for item in value]
    if isinstance(value, str) and (found := _SECRET_TEXT.search(value)):
        return value[: found.start()] + MASK
    return value
