"""API key authentication of this server's clients."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence

from openai_compat.accounts.service import Accounts, check_endpoint
from openai_compat.core.errors import AuthenticationError

from .request_context import CONTEXT_KEY, RequestContext, current_context, current_request


def require_api_key(keys: Sequence[str], accounts: Accounts | None, admin_key: str | None) -> Callable[[], None]:
    """Return a `before_request` function that rejects requests without a valid key.

    A key is valid if it is one of `keys`, or that of an account. Without keys and accounts every request is accepted,
    except those with `admin_key`, which is for the administration endpoints and must not reach an upstream.
    Each of `keys` is compared in constant time, so that the response time reveals nothing about them.
    """
    known = tuple(key.encode() for key in keys)
    forbidden = None if admin_key is None else admin_key.encode()

    def check_api_key() -> None:
        if forbidden is not None:
            _refuse(forbidden, current_context())
        active = accounts if accounts is not None and accounts.is_active() else None
        if not known and active is None:
            return
        environ = current_request().environ
        if environ["REQUEST_METHOD"] != "OPTIONS":
            _check(known, active, environ[CONTEXT_KEY])

    return check_api_key


def require_endpoint(endpoint: str) -> Callable[[], None]:
    """Return a `before_request` function that refuses callers whose account may not use the group of endpoints."""

    def check_permission() -> None:
        caller = current_context().caller
        if caller is not None:
            check_endpoint(caller, endpoint)

    return check_permission


def _check(known: Sequence[bytes], accounts: Accounts | None, context: RequestContext) -> None:
    if not context.authorization:
        raise AuthenticationError(
            "You didn't provide an API key. You need to provide your API key in an Authorization header using "
            "Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
        )
    key = bearer_token(context)
    candidate = key.encode("latin-1", "replace")
    context.accounts = accounts
    if sum(hmac.compare_digest(one, candidate) for one in known):
        return
    text = candidate.decode("utf-8", "surrogateescape")  # WSGI decodes headers as Latin-1
    caller = accounts.find_caller(text) if accounts is not None and key else None
    if caller is None:
        raise AuthenticationError("Incorrect API key provided.")
    context.set_caller(caller)


def _refuse(admin_key: bytes, context: RequestContext) -> None:
    if hmac.compare_digest(admin_key, bearer_token(context).encode("latin-1", "replace")):
        raise AuthenticationError("ADMIN_API_KEY is for the administration endpoints only. Create a key for calls.")


def bearer_token(context: RequestContext) -> str:
    """Return the client's key, or an empty text if there is none."""
    scheme, _, credential = (context.authorization or "").partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else ""
