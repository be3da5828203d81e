"""Protection against web pages that call this server without its operator's consent.

A page of another site can send requests from its visitor's browser to a server on the visitor's machine or network. It
cannot forge `Origin`, `Host` and `Sec-Fetch-Site`, which the browser sets. Other clients send neither `Origin` nor
`Sec-Fetch-Site`, so these checks do not concern them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from flask import request

from openai_compat.core.errors import ForbiddenError, UnsupportedMediaTypeError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

PUBLIC_BLUEPRINTS: Final = frozenset({"home", "docs", "health", "admin"})
"""Blueprints whose GET requests need no key and call no upstream. Links on other sites may lead to them."""
_AUTHORITY: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:]*)(?::[0-9]*)?", re.IGNORECASE)
_DEFAULT_PORT: Final = re.compile(r":(80|443)?\Z")


def reject_foreign_pages(hosts: Collection[str], origins: Collection[str]) -> Callable[[WSGIEnvironment], None]:
    """Return a function that rejects requests of other sites' pages, and for other hosts, by their WSGI environment.

    `hosts` are the names of this server, and `origins` those of pages that may call it. Both may contain `*`.
    """
    allowed_origins = frozenset(origin.lower() for origin in origins)
    names = frozenset(name.lower() for name in hosts)

    @lru_cache(maxsize=64)
    def is_allowed_host(bound_to: str, host: str) -> bool:
        return not host or "*" in names or _is_own_name(host, names, bound_to)

    def check_origin(environ: WSGIEnvironment) -> None:
        if not is_allowed_host(environ["SERVER_NAME"], environ.get("HTTP_HOST", "")):
            _reject_host()
        if "HTTP_ORIGIN" in environ or "HTTP_SEC_FETCH_SITE" in environ:
            _check_page(environ, allowed_origins)

    return check_origin


def _is_own_name(host: str, names: frozenset[str], bound_to: str) -> bool:
    """Return True if the header `Host` names this server, which listens on the address `bound_to`.

    Loopback names are always allowed. A page that has one of them was itself served by this machine.
    """
    found = _AUTHORITY.fullmatch(host)
    name = found[1].lower().rstrip(".") if found else ""
    if _is_loopback(name) or name in names:
        return True
    return not names and not _is_loopback(bound_to)


def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _reject_host() -> None:
    """Raise an error unless the request is a health check, as orchestrators send those to an address.

    A page whose name was resolved to this machine ("DNS rebinding") counts as same-origin for its browser, but still
    sends its own name.
    """
    if request.blueprint != "health":
        raise ForbiddenError(
            "This server does not answer under this host name. The setting ALLOWED_HOSTS lists its names.",
            code="unknown_host",
        )


def _check_page(environ: WSGIEnvironment, allowed_origins: frozenset[str]) -> None:
    """Check a request that a browser has sent.

    A preflight passes, because its response has CORS headers for allowed origins only. A body without a content type is
    one that a browser sends without a preflight.

    Raises:
        ForbiddenError: It comes from another site, which CORS does not allow.
        UnsupportedMediaTypeError: It has a body without a content type.
    """
    method = environ["REQUEST_METHOD"]
    if method != "OPTIONS" and not (
        is_same_origin(environ)
        or "*" in allowed_origins
        or environ.get("HTTP_ORIGIN", "").lower() in allowed_origins
        or (method in {"GET", "HEAD"} and request.blueprint in PUBLIC_BLUEPRINTS)
    ):
        raise ForbiddenError(
            "This server does not accept requests from pages of other sites. The setting CORS_ALLOW_ORIGINS lists the "
            "origins that may call it.",
            code="cross_site_request",
        )
    if not environ.get("CONTENT_TYPE") and _has_body(environ):
        raise UnsupportedMediaTypeError(
            "A request from a browser needs a content type. Send the header 'Content-Type: application/json'."
        )


def is_same_origin(environ: WSGIEnvironment) -> bool:
    """Return True if the page is this server's own, or if the user entered the address.

    A request of a browser has `Origin` or `Sec-Fetch-Site`.

    Browsers send `Sec-Fetch-Site` to HTTPS and loopback addresses only. Elsewhere the origin is compared with the name
    that the browser called, which a proxy may have moved to `X-Forwarded-Host`.
    """
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None:
        return site in {"same-origin", "none"}
    called = f"{environ.get('HTTP_HOST', '')},{environ.get('HTTP_X_FORWARDED_HOST', '')}"
    scheme, _, origin = environ["HTTP_ORIGIN"].partition("://")
    return bool(scheme and origin) and _without_port(origin) in {_without_port(part) for part in called.split(",")}


def _without_port(authority: str) -> str:
    """Return host and port in lower case, without a port that the scheme implies."""
    return _DEFAULT_PORT.sub("", authority.strip().lower())


def _has_body(environ: WSGIEnvironment) -> bool:
    return environ.get("CONTENT_LENGTH") not in {None, "", "0"} or "HTTP_TRANSFER_ENCODING" in environ
