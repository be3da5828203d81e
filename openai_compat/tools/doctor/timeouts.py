"""Whether silence is cut, whether a client that leaves is noticed, and what a reload does."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from uuid import uuid4

from openai_compat.tools.http_probe import ProbeResponse

from .results import CheckResult, bad, good, not_checked
from .target import TIMEOUT, Target, parse_events

DETECTION_LIMIT: Final = 5.0
READ_TIMEOUT: Final = "nginx: proxy_read_timeout 3600s; (as long as UPSTREAM_TOTAL_TIMEOUT)"
BALANCER: Final = "elsewhere: the load balancer's idle timeout"


def check_silence(patient: Target) -> Sequence[CheckResult]:
    """Before the first byte, and within a stream, both at once."""
    with ThreadPoolExecutor(2) as pool:
        whole = pool.submit(_silent_for, patient, stream=False)
        streamed = pool.submit(_silent_for, patient, stream=True)
        return [_of_whole(patient, *whole.result()), _of_stream(patient, *streamed.result())]


def _silent_for(patient: Target, *, stream: bool) -> tuple[ProbeResponse | None, float]:
    """What came of an answer that is silent for so long, and after how many seconds."""
    began = time.monotonic()
    pauses = [0, patient.silence] if stream else [patient.silence]
    try:
        answer: ProbeResponse | None = patient.order(timeout=patient.silence + TIMEOUT, stream=stream, pauses=pauses)
    except OSError:
        answer = None
    return answer, time.monotonic() - began


def _of_whole(patient: Target, answer: ProbeResponse | None, seconds: float) -> CheckResult:
    name = "silence before an answer"
    if answer is not None and answer.status == 200 and not answer.is_cut:
        return good(name, f"{patient.silence:g} s are waited for")
    how = "the connection is closed" if answer is None or answer.status == 200 else f"the status is {answer.status}"
    return bad(name, f"it is cut after {seconds:.1f} s ({how})", READ_TIMEOUT, BALANCER)


def _of_stream(patient: Target, answer: ProbeResponse | None, seconds: float) -> CheckResult:
    name = "silence within a stream"
    if answer is not None and answer.status == 200 and answer.body.rstrip().endswith(b"data: [DONE]"):
        return good(name, f"{patient.silence:g} s are waited for")
    filled = f"here: SSE_KEEPALIVE_SECONDS below {seconds:.0f} (a comment fills each silence)"
    return bad(name, f"it is cut after {seconds:.1f} s", READ_TIMEOUT, BALANCER, filled)


def check_hang_up(patient: Target) -> Sequence[CheckResult]:
    """Both at once: what is not noticed is waited for."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda stream: _left(patient, stream=stream), (True, False)))


def _left(patient: Target, *, stream: bool) -> CheckResult:
    """Leaves a call in the middle, and asks when that was noticed."""
    name = f"hang-up {'within a stream' if stream else 'before an answer'}"
    call = str(uuid4())
    pauses = [0, 60] if stream else [60]
    with patient.waiting(DETECTION_LIMIT, stream=stream, id=call, pauses=pauses) as connection:
        began = time.monotonic()
        if stream:
            connection.getresponse().read1()
        time.sleep(0.5)
        left = time.monotonic() - began
    noticed = patient.left_at(call, DETECTION_LIMIT)
    if noticed is not None:
        return good(name, f"it reaches the model within {max(noticed - left, 0.0) + 0.1:.1f} s")
    return bad(
        name,
        f"the model has not heard of it after {DETECTION_LIMIT:g} s, and goes on at your cost",
        "nginx: proxy_ignore_client_abort off;",
        "here: HALF_CLOSE_IS_DISCONNECT=true",
        "elsewhere: whatever reads the whole answer before it passes it on",
    )


def check_reload(patient: Target) -> Sequence[CheckResult]:
    """Runs the command under a stream, and asks for something small all the while."""
    if patient.reload is None:
        return [not_checked("reload", "say how it is done: --reload 'nginx -s reload', --reload 'kill -HUP PID'")]
    steps = max(int(patient.reload_seconds / 0.25), 4)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(patient.order, {}, patient.reload_seconds + TIMEOUT, pauses=[0.25] * steps)
        time.sleep(1)
        done = subprocess.run(  # noqa: S603 - whoever sits at the keyboard gave it
            shlex.split(patient.reload), capture_output=True, text=True, timeout=patient.reload_seconds, check=False
        )
        refused = _count_refusals(patient, until=time.monotonic() + patient.reload_seconds - 1)
        stream = running.result()
    if done.returncode:
        return [not_checked("reload", f"the command failed: {(done.stderr or done.stdout).strip()[-200:]}")]
    return [_of_reloaded_stream(stream), _of_refusals(refused)]


def _count_refusals(patient: Target, until: float) -> int:
    refused = 0
    while time.monotonic() < until:
        try:
            refused += patient.send("GET", "models").status >= 500
        except OSError:
            refused += 1
        time.sleep(0.05)
    return refused


def _of_reloaded_stream(stream: ProbeResponse) -> CheckResult:
    if stream.body.rstrip().endswith(b"data: [DONE]"):
        return good("reload", f"a stream of {stream.arrivals[-1][0]:.0f} s lived through it")
    last = parse_events(stream)[-1].said if parse_events(stream) else 0.0
    return bad(
        "reload",
        f"it cuts streams: this one {max(last - 1, 0):.1f} s after it",
        "nginx.conf: worker_shutdown_timeout as long as the longest answer",
        "here: GRACEFUL_TIMEOUT, and whatever kills the process must wait for as long "
        "(terminationGracePeriodSeconds, docker stop -t, TimeoutStopSec)",
    )


def _of_refusals(refused: int) -> CheckResult:
    if not refused:
        return good("requests during the reload", "none was refused")
    return bad(
        "requests during the reload",
        f"{refused} were refused",
        "reload with SIGHUP instead of a restart, or start the new one before the old one stops",
    )
