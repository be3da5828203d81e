"""`python -m openai_compat doctor` against the shipped nginx configuration, and against one with each fault."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.live_server import ROOT, LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.nginx import Nginx, nginx_in_front_of

ENABLED = {"DIAGNOSTICS_ENABLED": "true"}
ORIGIN = "https://app.example.com"
QUICK = ["--silence", "1", "--body", "32"]
Results = dict[str, Any]


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer({**ENABLED, "CORS_ALLOW_ORIGINS": ORIGIN}, workers=2) as live:
        yield live


def run_doctor(url: str, *options: str, code: int) -> Results:
    """Run the command and return its results by the names of the checks."""
    command = [sys.executable, "-m", "openai_compat", "doctor", url, *QUICK, "--json", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return {result["check"]: result for result in json.loads(done.stdout)["results"]}


def failed_checks(results: Results) -> set[str]:
    return {name for name, result in results.items() if result["outcome"] == "failed"}


def test_the_shipped_nginx_configuration_passes_every_check(server: LiveServer) -> None:
    with nginx_in_front_of(server.url) as nginx:
        reload = f"kill -HUP {nginx.process.pid}"
        results = run_doctor(nginx.url, "--origin", ORIGIN, "--reload", reload, "--reload-seconds", "3", code=0)
    assert {result["outcome"] for result in results.values()} == {"passed"}
    assert len(results) == 14


SITE = "    proxy_buffering off;"
BUFFERS = {
    SITE: "    proxy_buffering on;\n    proxy_ignore_headers X-Accel-Buffering;",
    "proxy_http_version 1.1;": "proxy_http_version 1.0;",
}
COMPRESSES = {
    "    gzip off;": "    gzip on;\n    gzip_types text/event-stream;\n    gzip_proxied any;\n    gzip_min_length 1;"
}
REMOVES_COMMENTS = {SITE: SITE + '\n    sub_filter ": keep-alive" "";\n    sub_filter_types text/event-stream;'}
HIDES_DISCONNECTS = {"proxy_ignore_client_abort off;": "proxy_ignore_client_abort on;"}
SHORT_TIMEOUT = {"proxy_read_timeout 3600s;": "proxy_read_timeout 600ms;"}
SMALL_BODIES = {"    client_max_body_size 32m;": "    client_max_body_size 1m;", "client_max_body_size 512m;": ""}
TWO_ORIGINS = {SITE: SITE + '\n    add_header Access-Control-Allow-Origin "*" always;'}
ANSWERS_PREFLIGHT = {
    SITE: SITE + "\n    if ($request_method = OPTIONS) { return 405; }",
}
HTML_ERRORS = {"    error_page 494 =431 /.openai-compat/error;": ""}


@pytest.mark.parametrize(
    ("fault", "expected", "line"),
    [
        pytest.param(BUFFERS, {"buffering"}, "proxy_buffering off;", id="events buffered"),
        pytest.param(COMPRESSES, {"compression"}, "gzip off;", id="streams compressed"),
        pytest.param(REMOVES_COMMENTS, {"keep-alive comments"}, "sub_filter", id="comments removed"),
        pytest.param(
            HIDES_DISCONNECTS,
            {"disconnect in a stream", "disconnect before a response"},
            "proxy_ignore_client_abort off;",
            id="disconnects hidden",
        ),
        pytest.param(
            SHORT_TIMEOUT,
            {"idle before a response", "idle in a stream"},
            "proxy_read_timeout 3600s;",
            id="idle connections closed",
        ),
        pytest.param(SMALL_BODIES, {"body size"}, "client_max_body_size 2m;", id="large bodies rejected"),
        pytest.param(TWO_ORIGINS, {"CORS"}, "no add_header Access-Control-Allow-Origin", id="two origins allowed"),
        pytest.param(ANSWERS_PREFLIGHT, {"CORS"}, "OPTIONS", id="preflight answered by the proxy"),
        pytest.param(HTML_ERRORS, {"error format"}, "error_page", id="errors in HTML"),
    ],
)
def test_each_fault_of_nginx_fails_its_check_and_names_the_line(
    server: LiveServer, fault: dict[str, str], expected: set[str], line: str
) -> None:
    with nginx_in_front_of(server.url, fault) as nginx:
        results = run_doctor(nginx.url, "--origin", ORIGIN, code=1)
    assert failed_checks(results) == expected
    for name in expected:
        assert any(line in fix for fix in results[name]["fix"]), results[name]


def test_a_reload_that_cuts_streams_fails(server: LiveServer) -> None:
    with nginx_in_front_of(
        server.url, main={"worker_shutdown_timeout 3600s;": "worker_shutdown_timeout 500ms;"}
    ) as nginx:
        reload = f"kill -HUP {nginx.process.pid}"
        results = run_doctor(nginx.url, "--reload", reload, "--reload-seconds", "4", code=1)
    assert failed_checks(results) == {"reload"}
    assert "worker_shutdown_timeout" in results["reload"]["fix"][0]


def test_faults_of_this_server_are_attributed_to_it() -> None:
    settings = {**ENABLED, "MAX_REQUEST_BYTES": "3000000", "HALF_CLOSE_IS_DISCONNECT": "false"}
    with LiveServer(settings) as server:
        results = run_doctor(server.url, "--origin", ORIGIN, code=1)
    # A client that leaves data of a stream unread resets the connection, which is no half-close.
    assert failed_checks(results) - {"disconnect in a stream"} == {"body size", "CORS", "disconnect before a response"}
    assert results["body size"]["fix"] == ["this server: MAX_REQUEST_BYTES=4194304"]
    assert results["CORS"]["fix"] == [f"this server: CORS_ALLOW_ORIGINS={ORIGIN}"]
    assert "this server: HALF_CLOSE_IS_DISCONNECT=true" in results["disconnect before a response"]["fix"]


def test_without_the_setting_only_requests_are_checked_and_the_report_names_it() -> None:
    with LiveServer() as server:
        results = run_doctor(server.url, code=0)
    assert "DIAGNOSTICS_ENABLED=true" in results["responses"]["message"]
    assert results["body size"]["outcome"] == "passed"


def test_another_server_is_checked_without_the_diagnostic_model() -> None:
    with MockUpstream() as other:
        results = run_doctor(other.url, code=0)
    assert results["responses"]["outcome"] == "skipped"
    assert results["body size"]["outcome"] == "passed"


def test_a_missing_key_exits_with_2_and_names_the_option() -> None:
    with LiveServer({**ENABLED, "API_KEYS": "sk-mine"}) as server:
        command = [sys.executable, "-m", "openai_compat", "doctor", server.url, *QUICK]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert "--api-key" in done.stderr
        with_key = [*command, "--api-key", "sk-mine"]
        done = subprocess.run(with_key, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout
    assert "✓ buffering: events arrive as they are sent" in done.stdout
    assert done.stdout.endswith("nothing to fix\n")


def test_an_unreachable_server_exits_with_2() -> None:
    command = [sys.executable, "-m", "openai_compat", "doctor", "http://127.0.0.1:1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be checked" in done.stderr


def test_a_fault_that_changes_no_line_of_the_shipped_configuration_is_an_error(server: LiveServer) -> None:
    """Each fault above replaces a line of the shipped configuration, so a line that is gone must not go unnoticed."""
    with (
        pytest.raises(AssertionError, match="no longer in the configuration"),
        nginx_in_front_of(server.url, {"no such line": ""}) as nginx,
    ):
        assert isinstance(nginx, Nginx)
