"""API key authentication of this server's clients."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence

from openai_compat.accounts.service import Accounts
from openai_compat.core.errors import AuthenticationError

from .request_context import CONTEXT_KEY, RequestContext, current_request


def require_api_key(keys: Sequence[str], accounts: Accounts | None) -> Callable[[], None]:
    """Return a `before_request` function that rejects requests without a valid key.

    A key is valid if it is one of `keys`, or that of an account. Without keys and accounts every request is accepted.
    Each of `keys` is compared in constant time, so that the response time reveals nothing about them.
    """
    known = tuple(key.encode() for key in keys)

    def check_api_key() -> None:
        active = accounts if accounts is not None and accounts.is_active() else None
        if not known and active is None:
            return
        environ = current_request().environ
        if environ["REQUEST_METHOD"] != "OPTIONS":
            _check(known, active, environ[CONTEXT_KEY])

    return check_api_key


def _check(known: Sequence[bytes], accounts: Accounts | None, context: RequestContext) -> None:
    if not context.authorization:
        raise AuthenticationError(
            "You didn't provide an API key. You need to provide your API key in an Authorization header using "
            "Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
        )
    scheme, _, credential = context.authorization.partition(" ")
    key = credential.strip() if scheme.lower() == "bearer" else ""
    candidate = key.encode("latin-1", "replace")
    context.accounts = accounts
    if sum(hmac.compare_digest(one, candidate) for one in known):
        return
    caller = accounts.find_caller(key) if accounts is not None and key else None
    if caller is None:
        raise AuthenticationError("Incorrect API key provided.")
    context.set_caller(caller)
