"""What is refused on the way in, and in whose words."""

from __future__ import annotations

import http.client
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from openai_compat.tools.http_probe import ProbeResponse, read_answer

from .results import CheckResult, bad, good, not_checked
from .target import Target

MIB: Final = 1024 * 1024
STEPS: Final = (1, 2, 4, 8, 10, 16, 20, 32, 64, 100, 128, 256, 512)
REFUSAL_LIMIT: Final = 1.0
"""A body that is too large is refused as soon as its length is known; one that is not is waited for."""
OURS: Final = "openai-version"
"""The header by which an answer of this server is told from one of what stands before it."""


def check_body(patient: Target) -> Sequence[CheckResult]:
    """The length is announced, and nothing sent: whoever minds says so at once."""
    sizes = [size for size in STEPS if size < patient.body] + [patient.body]
    with ThreadPoolExecutor(len(sizes)) as pool:
        refusals = list(pool.map(lambda size: _refusal(patient, size * MIB), sizes))
    for at, refusal in enumerate(refusals):
        if refusal is not None:
            return [_too_large(sizes[at], sizes[:at], refusal)]
    return [good("body", f"{patient.body} MiB are taken")]


def _refusal(patient: Target, length: int) -> ProbeResponse | None:
    connection = patient.address.connect(REFUSAL_LIMIT)
    try:
        connection.putrequest("POST", f"{patient.address.root}/chat/completions")
        for name, value in {**patient.headers, "Content-Length": str(length)}.items():
            connection.putheader(name, value)
        connection.endheaders()
        return read_answer(connection)
    except TimeoutError:
        return None
    except (http.client.HTTPException, ConnectionError):
        return ProbeResponse(0, {})
    finally:
        connection.close()


def _too_large(size: int, taken: Sequence[int], refusal: ProbeResponse) -> CheckResult:
    says = f"{size} MiB are refused with status {refusal.status or 'none at all'}"
    says += f", {taken[-1]} MiB are taken" if taken else ""
    if refusal.status not in {0, 413}:
        return not_checked("body", says)
    if OURS in refusal.headers:
        return bad("body", f"{says}, by this server", f"here: MAX_REQUEST_BYTES={size * MIB}")
    return bad("body", f"{says}, before this server", f"nginx: client_max_body_size {size}m;")


def check_cors(patient: Target) -> Sequence[CheckResult]:
    origin = patient.origin
    if origin is None:
        return [not_checked("CORS", "say which page calls: --origin https://app.example.com")]
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
    }
    preflight = patient.send("OPTIONS", "chat/completions", None, asked)
    answer = patient.send("GET", "models", None, {"Origin": origin})
    values = [reply.headers.get("access-control-allow-origin", "") for reply in (preflight, answer)]
    if any("," in value for value in values):
        return [
            bad("CORS", f"the answer allows two origins ({', '.join(values)}), and browsers take neither",
                "nginx: no add_header Access-Control-Allow-Origin: the server says it")
        ]  # fmt: skip
    if preflight.status >= 300:
        return [
            bad("CORS", f"the preflight is answered with {preflight.status}",
                "nginx: no limit_except and no `if` that takes OPTIONS away from the server")
        ]  # fmt: skip
    if not all(value in {origin, "*"} for value in values):
        return [bad("CORS", f"{origin} may not call", f"here: CORS_ALLOW_ORIGINS={origin}")]
    allowed = preflight.headers.get("access-control-allow-headers", "").lower()
    if "authorization" not in allowed:
        return [bad("CORS", f"the header authorization is not allowed, only {allowed or 'none'}",
                    "nginx: no add_header Access-Control-Allow-Headers: the server says it")]  # fmt: skip
    return [good("CORS", f"{origin} may call")]


def check_errors(patient: Target) -> Sequence[CheckResult]:
    """What nobody but the first in line can answer: a header that is too long."""
    try:
        answer = patient.send("GET", "models", None, {"X-Padding": "x" * 40_000})
    except (ConnectionError, http.client.HTTPException):
        return [not_checked("errors", "a header that is too long is answered with a closed connection")]
    if answer.status < 400:
        return [good("errors", "a header of 40 kB is taken; what would be refused is not known")]
    if answer.media_type == "application/json" and b'"error"' in answer.body:
        return [good("errors", "what is refused on the way has OpenAI's error object")]
    return [
        bad("errors", f"what is refused on the way is {answer.media_type or 'of no type'} (status {answer.status})",
            "nginx: the error_page lines, the map and the location of deploy/nginx-site.conf")
    ]  # fmt: skip
