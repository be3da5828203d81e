"""Sessions of the admin page, in a signed cookie, without state on the server."""

from __future__ import annotations

import hmac
from hashlib import sha256
from secrets import token_hex
from typing import Final

from flask import Response, request
from itsdangerous import BadSignature, TimestampSigner

from openai_compat.core.errors import AuthenticationError, ForbiddenError, RateLimitedError
from openai_compat.state.base import StateStore

from .cross_site import is_same_origin
from .request_context import current_request

COOKIE: Final = "admin_session"
CSRF_HEADER: Final = "x-csrf-token"
MAX_AGE: Final = 12 * 3600
"""Seconds until an administrator signs in again."""
PURPOSE: Final = b"openai-compat admin session 1"
"""Separates this key from others that are derived of the same secret, and versions the format."""
SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
MAX_ATTEMPTS: Final = 10
ATTEMPT_SECONDS: Final = 60.0
"""Time in which a client address may try `MAX_ATTEMPTS` times to sign in."""


class AdminSessions:
    """Sessions of administrators, who sign in with `ADMIN_API_KEY`. Another key ends all of them."""

    def __init__(self, admin_key: str, secret: str, store: StateStore) -> None:
        """Derive the key of the signatures from `secret`, which all workers have. `store` counts attempts."""
        self._admin_key = admin_key.encode()
        self._key = hmac.digest(secret.encode(), PURPOSE + self._admin_key, "sha256")
        self._signer = TimestampSigner(self._key, salt=PURPOSE, key_derivation="hmac", digest_method=sha256)
        self._store = store

    def sign_in(self, key: str) -> str:
        """Return the value of a new session's cookie.

        Raises:
            RateLimitedError: the client's address tried too often. AuthenticationError: the key is wrong.
        """
        name = f"admin-sign-in:{request.remote_addr}"
        if self._store.increment(name, 1, ATTEMPT_SECONDS) > MAX_ATTEMPTS:
            raise RateLimitedError(
                "Too many attempts to sign in. Try again in a minute.", retry_after=int(ATTEMPT_SECONDS)
            )
        if not hmac.compare_digest(self._admin_key, key.encode("utf-8", "replace")):
            raise AuthenticationError("This is not the server's ADMIN_API_KEY.")
        self._store.delete(name)
        return self._signer.sign(token_hex(16)).decode()

    def check(self) -> None:
        """Raise an error unless the current request belongs to a session. A change also needs the session's token.

        Raises:
            AuthenticationError, ForbiddenError
        """
        check_own_page()
        cookie = self.cookie()
        if cookie is None:
            raise AuthenticationError("Sign in with the server's ADMIN_API_KEY.")
        current = current_request()
        if current.method not in SAFE_METHODS:
            sent = current.headers.get(CSRF_HEADER, "").encode("latin-1", "replace")
            if not hmac.compare_digest(self.csrf_token(cookie).encode(), sent):
                raise ForbiddenError("The request has no valid CSRF token. Reload the page.", code="invalid_csrf_token")

    def cookie(self) -> str | None:
        """Return the cookie of the current request, or None without a valid session."""
        cookie = current_request().cookies.get(COOKIE)
        try:
            if cookie is not None and self._signer.unsign(cookie, max_age=MAX_AGE):
                return cookie
        except BadSignature:  # or expired
            return None
        return None

    def csrf_token(self, cookie: str) -> str:
        """Return the token that every change in the session sends in a header, which other sites cannot read."""
        return hmac.digest(self._key, b"csrf " + cookie.encode(), "sha256").hex()


def check_own_page() -> None:
    """Raise an error if a browser sent the current request for a page of another origin, or did not say which.

    Origins of `CORS_ALLOW_ORIGINS` may call models, and not this.

    Raises:
        ForbiddenError
    """
    environ = current_request().environ
    if "HTTP_ORIGIN" in environ or "HTTP_SEC_FETCH_SITE" in environ:
        is_allowed = is_same_origin(environ)
    else:
        is_allowed = environ["REQUEST_METHOD"] in SAFE_METHODS  # browsers send `Origin` with all others
    if not is_allowed:
        raise ForbiddenError("The admin page accepts requests from itself only.", code="cross_site_request")


def set_cookie(response: Response, value: str) -> None:
    """Set the session's cookie, or delete it with an empty text.

    It has no `Path`, so that browsers limit it to the folder of the endpoint that sets it, `/admin`, also behind a
    proxy that puts a prefix before it.
    """
    is_secure = current_request().is_secure
    age = MAX_AGE if value else 0
    response.set_cookie(COOKIE, value, max_age=age, path=None, secure=is_secure, httponly=True, samesite="Strict")
