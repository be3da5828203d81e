"""Masking of credentials in what this server repeats to clients and in its log."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

MASK: Final = "***"
MIN_SECRET_CHARS: Final = 6
"""Shorter values are not secrets, and masking them would damage ordinary words."""
PLACEHOLDERS: Final = frozenset(
    {"anything", "changeme", "default", "dummy-key", "lm-studio", "no-key", "no-key-required", "not-needed",
     "not-required", "ollama", "placeholder", "required", "sk-no-key-required", "token-abc123", "unused"}
)  # fmt: skip
"""Keys in lower case that the guides of local servers tell users to set. Masking them would damage ordinary words."""
PUBLIC_HEADERS: Final = frozenset(
    {"accept", "accept-language", "anthropic-beta", "anthropic-version", "content-type", "http-referer", "openai-beta",
     "user-agent", "x-title"}
)  # fmt: skip
"""Headers that models files set to values which errors may repeat, such as versions."""
_SCHEMES: Final = frozenset({"bearer", "basic", "token", "apikey", "api-key", "key"})
_SECRET_NAME: Final = re.compile(r"key|token|secret|pass|auth|sig|code", re.IGNORECASE)


class Redactor:
    """Mask for a set of secrets, as they are, percent-encoded and inside JSON.

    The secret of an `Authorization` is its value without the scheme.
    """

    def __init__(self, secrets: Iterable[str | None], min_chars: int = MIN_SECRET_CHARS) -> None:
        forms = {form for secret in secrets if secret for form in _forms(secret, min_chars)}
        self._texts = tuple(sorted(forms, key=len, reverse=True))
        self._patterns = tuple(text.encode() for text in self._texts)

    def including(self, secrets: Iterable[str | None]) -> Redactor:
        """Return a redactor for these secrets, too."""
        return Redactor([*self._texts, *secrets])

    def mask(self, text: str) -> str:
        """Return the text with each secret replaced by `MASK`."""
        for secret in self._texts:
            if secret in text:
                text = text.replace(secret, MASK)
        return text

    def mask_bytes(self, data: bytes) -> bytes:
        """Return the data with each secret replaced by `MASK`."""
        for secret in self._patterns:
            if data.find(secret) >= 0:
                data = data.replace(secret, MASK.encode())
        return data

    def mask_headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return the headers with each secret in a value replaced by `MASK`, or `headers` itself without any."""
        values = "\n".join(headers.values())
        for secret in self._texts:
            if secret in values:
                return {name: self.mask(value) for name, value in headers.items()}
        return headers


NOTHING_SECRET: Final = Redactor(())


def header_secrets(headers: Mapping[str, str]) -> Iterator[str]:
    """Yield the values of configured headers that may be secrets. That is all but those of `PUBLIC_HEADERS`."""
    return (value for name, value in headers.items() if name.lower() not in PUBLIC_HEADERS)


def url_secrets(url: str) -> Iterator[str]:
    """Yield the password of a URL, the credential of `Basic` that it makes, and values of a query that name a secret.

    An invalid URL has none.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    if parts.password:
        password = unquote(parts.password)
        yield password
        yield base64.b64encode(f"{unquote(parts.username or '')}:{password}".encode()).decode()
    yield from (value for name, value in parse_qsl(parts.query) if _SECRET_NAME.search(name))


def _forms(secret: str, min_chars: int) -> Iterator[str]:
    """Yield the spellings of a secret in texts. A value that is too short or a placeholder is none."""
    scheme, _, credential = secret.partition(" ")
    for value in (credential,) if scheme.lower() in _SCHEMES else (secret,):
        if len(value) >= min_chars and value.lower() not in PLACEHOLDERS:
            escaped = json.dumps(value, ensure_ascii=False)[1:-1]
            yield from (value, quote(value, safe=""), escaped, escaped.replace("/", "\\/"))
