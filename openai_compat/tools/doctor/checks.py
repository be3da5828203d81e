"""All checks in the order of the report."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from .requests import check_body_size, check_cors, check_error_format
from .results import CheckResult, passed, skipped
from .storage import check_stored_objects
from .streaming import check_buffering, check_compression, check_keep_alive_comments
from .target import Target, TargetError
from .timeouts import check_disconnects, check_idle_timeouts, check_reload

Check = Callable[[Target], Sequence[CheckResult]]
REQUEST_CHECKS: Final[Sequence[Check]] = (check_body_size, check_cors, check_error_format)
"""Checks that need no diagnostic model."""
RESPONSE_CHECKS: Final[Sequence[Check]] = (
    check_buffering,
    check_compression,
    check_keep_alive_comments,
    check_disconnects,
    check_idle_timeouts,
    check_stored_objects,
)


def run_checks(target: Target) -> list[CheckResult]:
    """Run all checks concurrently, except for the reload, and return their results in order.

    Without the diagnostic model, only the checks of requests are run.

    Raises:
        TargetError: the server requires a key, or its response is not HTTP.
        OSError: the server cannot be reached.
    """
    reason = _missing_model_reason(target)
    checks = REQUEST_CHECKS if reason else [*RESPONSE_CHECKS, *REQUEST_CHECKS]
    with ThreadPoolExecutor(len(checks)) as pool:
        found = [result for results in pool.map(lambda check: _run(check, target), checks) for result in results]
    if reason:
        return [skipped("responses", reason), *found]
    # The reload comes alone and last, because the server may be unavailable for a moment.
    return [passed("reachable", "the diagnostic model answers"), *found, *_run(check_reload, target)]


def _missing_model_reason(target: Target) -> str:
    """Return why there is no diagnostic model, or an empty string if it answers."""
    try:
        response = target.run_command(stream=False, pauses=[0])
    except http.client.HTTPException as error:
        raise TargetError(f"the response is not HTTP: {error!r}") from error
    if response.status in {401, 403}:
        raise TargetError(f"the server requires a key ({response.status}), which --api-key sets")
    if response.status == 200 and b'\\"at\\"' in response.body:
        return ""
    return (
        f"the server has no diagnostic model (status {response.status}), so only requests were checked. If it is this "
        "server, set DIAGNOSTICS_ENABLED=true and reload it"
    )


def _run(check: Check, target: Target) -> Sequence[CheckResult]:
    try:
        return check(target)
    except (OSError, http.client.HTTPException, LookupError, ValueError, TypeError) as error:
        name = check.__name__.removeprefix("check_").replace("_", " ")
        return [skipped(name, f"the check could not be completed: {error or type(error).__name__}")]
