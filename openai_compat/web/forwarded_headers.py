"""Headers and the credential of a client's request that upstreams may get."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

# Request headers that are forwarded to an upstream. Cookies, what proxies in front of this server add about the user,
# and credentials for this server are not forwarded.
FORWARDED_HEADERS = frozenset(
    {
        "HTTP_USER_AGENT", "HTTP_ACCEPT", "HTTP_ACCEPT_LANGUAGE", "HTTP_IDEMPOTENCY_KEY", "HTTP_X_CLIENT_REQUEST_ID",
        "HTTP_TRACEPARENT", "HTTP_TRACESTATE", "HTTP_ANTHROPIC_VERSION", "HTTP_ANTHROPIC_BETA",
    }
)  # fmt: skip
# Range and conditional headers are for downloads only. Part of a chat completion, or none, is no answer.
_FORWARDED_WITH_GET = FORWARDED_HEADERS | {
    "HTTP_RANGE", "HTTP_IF_RANGE", "HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE",
}  # fmt: skip
_FORWARDED_PREFIXES = ("HTTP_OPENAI_", "HTTP_X_STAINLESS_")


def authorization_of(environ: Mapping[str, Any]) -> str | None:
    """Return the client's credential as an `Authorization` value.

    A bearer token is used first, then the header `api-key` of Azure's clients, then `x-api-key` of Anthropic's. Any
    other scheme of `Authorization` belongs to a proxy in between.
    """
    value: str | None = environ.get("HTTP_AUTHORIZATION")
    if value and value[:7].lower() == "bearer ":
        return value
    key = environ.get("HTTP_API_KEY") or environ.get("HTTP_X_API_KEY")
    return f"Bearer {key}" if key else value


def forwardable_headers(environ: Mapping[str, Any], request_id: str) -> dict[str, str]:
    """Return the client's headers for an upstream, with the request id that appears in the logs of both servers."""
    allowed = _FORWARDED_WITH_GET if environ["REQUEST_METHOD"] in {"GET", "HEAD"} else FORWARDED_HEADERS
    headers = {name: environ[key] for key, name in _forwarded_names(tuple(environ), allowed)}
    headers["x-request-id"] = request_id
    return headers


@lru_cache(maxsize=1024)
def _forwarded_names(environ_names: tuple[str, ...], allowed: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """Return the forwarded headers by their names in `environ`, with the names that the upstream gets.

    Cached, as all requests of a client have the same headers.
    """
    return tuple(
        (name, name.removeprefix("HTTP_").lower().replace("_", "-"))
        for name in environ_names
        if name in allowed or name.startswith(_FORWARDED_PREFIXES)
    )
