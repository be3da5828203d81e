"""Checks of requests that a proxy or the server rejects."""

from __future__ import annotations

import http.client
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from openai_compat.tools.http_probe import ProbeResponse, read_response

from .results import CheckResult, failed, passed, skipped
from .target import Target

MIB: Final = 1024 * 1024
SIZES: Final = (1, 2, 4, 8, 10, 16, 20, 32, 64, 100, 128, 256, 512)
REJECTION_TIMEOUT: Final = 1.0
"""A body that is too large is rejected as soon as its length is known. For an accepted one, the server waits."""
OWN_HEADER: Final = "openai-version"
"""Header that distinguishes responses of this server from those of a proxy."""
LONG_HEADER_BYTES: Final = 40_000


def check_body_size(target: Target) -> Sequence[CheckResult]:
    """Announce bodies of increasing length without sending them, and find the smallest that is rejected."""
    sizes = [size for size in SIZES if size < target.body_mib] + [target.body_mib]
    with ThreadPoolExecutor(len(sizes)) as pool:
        rejections = list(pool.map(lambda size: _rejection(target, size * MIB), sizes))
    for index, rejection in enumerate(rejections):
        if rejection is not None:
            return [_too_large(sizes[index], sizes[:index], rejection)]
    return [passed("body size", f"{target.body_mib} MiB are accepted")]


def _rejection(target: Target, length: int) -> ProbeResponse | None:
    """Return the rejection of a body of this length, None if the server waits for the body.

    Status 0 stands for a connection that was closed without a response.
    """
    connection = target.base_url.connect(REJECTION_TIMEOUT)
    try:
        connection.putrequest("POST", f"{target.base_url.path}/chat/completions")
        for name, value in {**target.headers, "Content-Length": str(length)}.items():
            connection.putheader(name, value)
        connection.endheaders()
        return read_response(connection)
    except TimeoutError:
        return None
    except (http.client.HTTPException, ConnectionError):
        return ProbeResponse(0, {})
    finally:
        connection.close()


def _too_large(size: int, accepted: Sequence[int], rejection: ProbeResponse) -> CheckResult:
    how = f"with status {rejection.status}" if rejection.status else "by closing the connection"
    message = f"{size} MiB are rejected {how}" + (f", {accepted[-1]} MiB are accepted" if accepted else "")
    if rejection.status not in {0, 413}:
        return skipped("body size", message)
    if OWN_HEADER in rejection.headers:
        return failed("body size", f"{message}, by this server", f"this server: MAX_REQUEST_BYTES={size * MIB}")
    return failed("body size", f"{message}, by a proxy", f"nginx: client_max_body_size {size}m;")


def check_cors(target: Target) -> Sequence[CheckResult]:
    """Send a preflight and a request of the page `--origin`."""
    origin = target.origin
    if origin is None:
        return [skipped("CORS", "requires the page's origin, such as --origin https://app.example.com")]
    preflight_headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
    }
    preflight = target.send("OPTIONS", "chat/completions", None, preflight_headers)
    response = target.send("GET", "models", None, {"Origin": origin})
    values = [each.headers.get("access-control-allow-origin", "") for each in (preflight, response)]
    if any("," in value for value in values):
        return [
            failed("CORS", f"a response allows two origins ({', '.join(values)}), which browsers reject",
                   "nginx: no add_header Access-Control-Allow-Origin, the server sends it")
        ]  # fmt: skip
    if preflight.status >= 300:
        return [
            failed("CORS", f"the preflight returns status {preflight.status}",
                   "nginx: no limit_except and no `if` that answers OPTIONS in place of the server")
        ]  # fmt: skip
    if not all(value in {origin, "*"} for value in values):
        return [failed("CORS", f"{origin} is not allowed", f"this server: CORS_ALLOW_ORIGINS={origin}")]
    allowed = preflight.headers.get("access-control-allow-headers", "").lower()
    if "authorization" not in allowed:
        return [failed("CORS", f"the header authorization is not allowed, only {allowed or 'none'}",
                       "nginx: no add_header Access-Control-Allow-Headers, the server sends it")]  # fmt: skip
    return [passed("CORS", f"{origin} is allowed")]


def check_error_format(target: Target) -> Sequence[CheckResult]:
    """Send a header that is too long, which the first proxy rejects itself."""
    try:
        response = target.send("GET", "models", None, {"X-Padding": "x" * LONG_HEADER_BYTES})
    except (ConnectionError, http.client.HTTPException):
        return [skipped("error format", "the connection is closed after a header that is too long")]
    if response.status < 400:
        return [passed("error format", "a header of 40 kB is accepted, so no rejection was seen")]
    if response.media_type == "application/json" and b'"error"' in response.body:
        return [passed("error format", "rejections of the proxy have OpenAI's error object")]
    return [
        failed("error format", f"rejections of the proxy are {response.media_type or 'without a content type'} "
               f"(status {response.status})",
               "nginx: the error_page lines, the map and the location of deploy/nginx-site.conf")
    ]  # fmt: skip
