"""Checks of idle timeouts, client disconnects and reloads."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from uuid import uuid4

from openai_compat.tools.http_probe import ProbeResponse

from .results import CheckResult, failed, passed, skipped
from .target import POLL_INTERVAL, TIMEOUT, Target, parse_events

DETECTION_TIMEOUT: Final = 5.0
EVENT_INTERVAL: Final = 0.25
RELOAD_DELAY: Final = 1.0
READ_TIMEOUT_FIX: Final = "nginx: proxy_read_timeout 3600s; (as long as UPSTREAM_TOTAL_TIMEOUT)"
BALANCER_FIX: Final = "elsewhere: the load balancer's idle timeout"


def check_idle_timeouts(target: Target) -> Sequence[CheckResult]:
    """Wait before the first byte of a response and in a stream, both at the same time."""
    with ThreadPoolExecutor(2) as pool:
        plain = pool.submit(_idle, target, stream=False)
        streamed = pool.submit(_idle, target, stream=True)
        return [_plain_result(target, *plain.result()), _stream_result(target, *streamed.result())]


def _idle(target: Target, *, stream: bool) -> tuple[ProbeResponse | None, float]:
    """Return the response to a call that is idle for the target's time, None if there is none, and its duration."""
    started = time.monotonic()
    pauses = [0, target.idle_seconds] if stream else [target.idle_seconds]
    try:
        response: ProbeResponse | None = target.run_command(
            timeout=target.idle_seconds + TIMEOUT, stream=stream, pauses=pauses
        )
    except OSError:
        response = None
    return response, time.monotonic() - started


def _plain_result(target: Target, response: ProbeResponse | None, seconds: float) -> CheckResult:
    name = "idle before a response"
    if response is not None and response.status == 200 and not response.is_truncated:
        return passed(name, f"{target.idle_seconds:g} s without data are possible")
    how = "the connection is closed"
    if response is not None and response.status != 200:
        how = f"status {response.status}"
    return failed(name, f"the call is aborted after {seconds:.1f} s ({how})", READ_TIMEOUT_FIX, BALANCER_FIX)


def _stream_result(target: Target, response: ProbeResponse | None, seconds: float) -> CheckResult:
    name = "idle in a stream"
    if response is not None and response.status == 200 and response.body.rstrip().endswith(b"data: [DONE]"):
        return passed(name, f"{target.idle_seconds:g} s without data are possible")
    keep_alive = f"this server: SSE_KEEPALIVE_SECONDS below {seconds:.0f}, for a comment in each idle gap"
    return failed(name, f"the stream is cut after {seconds:.1f} s", READ_TIMEOUT_FIX, BALANCER_FIX, keep_alive)


def check_disconnects(target: Target) -> Sequence[CheckResult]:
    """Disconnect in a stream and before a response, both at the same time."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda stream: _disconnect(target, stream=stream), (True, False)))


def _disconnect(target: Target, *, stream: bool) -> CheckResult:
    """Disconnect from a call, then ask the server when it detected that."""
    name = f"disconnect {'in a stream' if stream else 'before a response'}"
    call_id = str(uuid4())
    pauses = [0, 60] if stream else [60]
    with target.open_call(DETECTION_TIMEOUT, stream=stream, id=call_id, pauses=pauses) as connection:
        started = time.monotonic()
        if stream:
            connection.getresponse().read1()
        time.sleep(0.5)
        disconnected = time.monotonic() - started
    detected = target.disconnect_time(call_id, DETECTION_TIMEOUT)
    if detected is not None:
        return passed(name, f"the server detects it within {max(detected - disconnected, 0.0) + 0.1:.1f} s")
    return failed(
        name,
        f"the server has not detected it after {DETECTION_TIMEOUT:g} s, and the model continues at your cost",
        "nginx: proxy_ignore_client_abort off;",
        "this server: HALF_CLOSE_IS_DISCONNECT=true",
        "elsewhere: no proxy that reads the complete response before it forwards it",
    )


def check_reload(target: Target) -> Sequence[CheckResult]:
    """Run the reload command during a stream, and send small requests until the stream ends."""
    if target.reload is None:
        return [skipped("reload", "requires the command: --reload 'nginx -s reload', --reload 'kill -HUP PID'")]
    events = max(int(target.reload_seconds / EVENT_INTERVAL), 4)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(target.run_command, {}, target.reload_seconds + TIMEOUT, pauses=[EVENT_INTERVAL] * events)
        time.sleep(RELOAD_DELAY)
        done = subprocess.run(  # noqa: S603 - the operator gave the command
            shlex.split(target.reload), capture_output=True, text=True, timeout=target.reload_seconds, check=False
        )
        failures = _count_failures(target, until=time.monotonic() + target.reload_seconds - RELOAD_DELAY)
        stream = running.result()
    if done.returncode:
        return [skipped("reload", f"the command failed: {(done.stderr or done.stdout).strip()[-200:]}")]
    return [_reloaded_stream_result(stream), _failures_result(failures)]


def _count_failures(target: Target, until: float) -> int:
    failures = 0
    while time.monotonic() < until:
        try:
            failures += target.send("GET", "models").status >= 500
        except OSError:
            failures += 1
        time.sleep(POLL_INTERVAL)
    return failures


def _reloaded_stream_result(stream: ProbeResponse) -> CheckResult:
    if stream.body.rstrip().endswith(b"data: [DONE]"):
        return passed("reload", f"a stream of {stream.chunk_times[-1][0]:.0f} s was not interrupted")
    events = parse_events(stream)
    last = events[-1].sent_at if events else 0.0
    return failed(
        "reload",
        f"it cuts streams, this one after {max(last - RELOAD_DELAY, 0):.1f} s",
        "nginx.conf: worker_shutdown_timeout as long as the longest response",
        "this server: GRACEFUL_TIMEOUT, and the same time for what stops the process "
        "(terminationGracePeriodSeconds, docker stop -t, TimeoutStopSec)",
    )


def _failures_result(failures: int) -> CheckResult:
    name = "requests during the reload"
    if not failures:
        return passed(name, "all succeeded")
    return failed(
        name,
        f"{failures} failed",
        "reload with SIGHUP instead of a restart, or start the new process before the old one stops",
    )
