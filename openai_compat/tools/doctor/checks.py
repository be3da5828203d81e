"""All checks, in the order in which a person would make them."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from .requests import check_body, check_cors, check_errors
from .results import CheckResult, good, not_checked
from .streaming import check_comments, check_compression, check_events
from .target import Target, TargetError
from .timeouts import check_hang_up, check_reload, check_silence

Check = Callable[[Target], Sequence[CheckResult]]
OF_THE_WAY: Sequence[Check] = (check_body, check_cors, check_errors)
OF_ANSWERS: Sequence[Check] = (check_events, check_compression, check_comments, check_hang_up, check_silence)


def examine(patient: Target) -> list[CheckResult]:
    """Every finding. The checks that wait do so at the same time.

    Raises:
        PatientError: it does not let the doctor in. OSError: nobody answers.
    """
    has_model, why_not = _can_be_told(patient)
    checks = [*OF_ANSWERS, *OF_THE_WAY] if has_model else OF_THE_WAY
    with ThreadPoolExecutor(len(checks)) as pool:
        found = [finding for findings in pool.map(lambda check: _made(check, patient), checks) for finding in findings]
    if not has_model:
        return [not_checked("answers", why_not), *found]
    # By itself, and last: it may take the server away for a moment.
    return [good("reachable", "and the doctor's model answers"), *found, *_made(check_reload, patient)]


def _can_be_told(patient: Target) -> tuple[bool, str]:
    try:
        answer = patient.order(stream=False, pauses=[0])
    except http.client.HTTPException as error:
        raise TargetError(f"what answers is no HTTP: {error!r}") from error
    if answer.status in {401, 403}:
        raise TargetError(f"it wants a key ({answer.status}): --api-key")
    if answer.status == 200 and b'\\"at\\"' in answer.body:
        return True, ""
    return False, (
        f"the server behind does not know the doctor's model (status {answer.status}): it is another one, or an "
        "older one, or DIAGNOSTICS_ENABLED=false; only the way there could be checked"
    )


def _made(check: Check, patient: Target) -> Sequence[CheckResult]:
    try:
        return check(patient)
    except (OSError, http.client.HTTPException, LookupError, ValueError, TypeError) as error:
        name = check.__name__.removeprefix("check_").replace("_", " ")
        return [not_checked(name, f"it could not be found out: {error or type(error).__name__}")]
