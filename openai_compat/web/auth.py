"""API key authentication of this server's clients."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence

from openai_compat.core.errors import AuthenticationError

from .request_context import CONTEXT_KEY, current_request


def require_api_key(keys: Sequence[str]) -> Callable[[], None]:
    """Return a `before_request` function that rejects requests without one of `keys`. Without keys it rejects none.

    Every key is compared, each in constant time, so that the response time reveals nothing about them.
    """
    known = tuple(key.encode() for key in keys)

    def check_api_key() -> None:
        if not known:
            return
        environ = current_request().environ
        if environ["REQUEST_METHOD"] != "OPTIONS":
            _check(known, environ[CONTEXT_KEY].authorization)

    return check_api_key


def _check(known: Sequence[bytes], authorization: str | None) -> None:
    scheme, _, credential = (authorization or "").partition(" ")
    if not authorization:
        raise AuthenticationError(
            "You didn't provide an API key. You need to provide your API key in an Authorization header using "
            "Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
        )
    candidate = credential.strip().encode("latin-1", "replace") if scheme.lower() == "bearer" else b""
    if not sum(hmac.compare_digest(key, candidate) for key in known):
        raise AuthenticationError("Incorrect API key provided.")
