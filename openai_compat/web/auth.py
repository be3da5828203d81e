"""The keys of this server's callers."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence

from openai_compat.core.errors import AuthenticationError

from .request_context import CONTEXT_KEY, current_request


def require_api_key(keys: Sequence[str]) -> Callable[[], None]:
    """A `before_request` function that lets a request with one of `keys` pass; every request when there are none.

    All keys are compared in constant time, each of them every time, so that the time tells nothing of any.
    """
    known = tuple(key.encode() for key in keys)

    def check() -> None:
        if not known:
            return
        environ = current_request().environ
        if environ["REQUEST_METHOD"] != "OPTIONS":
            _check(known, environ[CONTEXT_KEY].authorization)

    return check


def _check(known: Sequence[bytes], authorization: str | None) -> None:
    scheme, _, sent = (authorization or "").partition(" ")
    if not authorization:
        raise AuthenticationError(
            "You didn't provide an API key. You need to provide your API key in an Authorization header using "
            "Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
        )
    candidate = sent.strip().encode("latin-1", "replace") if scheme.lower() == "bearer" else b""
    if not sum(hmac.compare_digest(key, candidate) for key in known):
        raise AuthenticationError("Incorrect API key provided.")
