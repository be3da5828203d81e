"""`python -m openai_compat doctor` against an nginx that is right, and against one that is wrong in each way."""

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

ORIGIN = "https://app.example.com"
QUICK = ["--silence", "1", "--body", "32"]
Findings = dict[str, Any]


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer({"CORS_ALLOW_ORIGINS": ORIGIN}, workers=2) as live:
        yield live


def examine(url: str, *options: str, code: int) -> Findings:
    """The findings by their names."""
    command = [sys.executable, "-m", "openai_compat", "doctor", url, *QUICK, "--json", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}


def bads(findings: Findings) -> set[str]:
    return {name for name, finding in findings.items() if finding["outcome"] == "bad"}


def test_the_shipped_nginx_has_nothing_to_change(server: LiveServer) -> None:
    with nginx_in_front_of(server.url) as nginx:
        reload = f"kill -HUP {nginx.process.pid}"
        found = examine(nginx.url, "--origin", ORIGIN, "--reload", reload, "--reload-seconds", "3", code=0)
    assert {finding["outcome"] for finding in found.values()} == {"good"}
    assert len(found) == 13


SITE = "    proxy_buffering off;"
HOLDS_BACK = {
    SITE: "    proxy_buffering on;\n    proxy_ignore_headers X-Accel-Buffering;",
    "proxy_http_version 1.1;": "proxy_http_version 1.0;",
}
COMPRESSES = {
    "    gzip off;": "    gzip on;\n    gzip_types text/event-stream;\n    gzip_proxied any;\n    gzip_min_length 1;"
}
STRIPS = {SITE: SITE + '\n    sub_filter ": keep-alive" "";\n    sub_filter_types text/event-stream;'}
HIDES = {"proxy_ignore_client_abort off;": "proxy_ignore_client_abort on;"}
IMPATIENT = {"proxy_read_timeout 3600s;": "proxy_read_timeout 600ms;"}
NARROW = {"    client_max_body_size 32m;": "    client_max_body_size 1m;", "client_max_body_size 512m;": ""}
ALLOWS_TWICE = {SITE: SITE + '\n    add_header Access-Control-Allow-Origin "*" always;'}
TAKES_OPTIONS = {
    SITE: SITE + "\n    if ($request_method = OPTIONS) { return 405; }",
}
SPEAKS_HTML = {"    error_page 494 =431 /.openai-compat/error;": ""}


@pytest.mark.parametrize(
    ("wrong", "expected", "line"),
    [
        pytest.param(HOLDS_BACK, {"events"}, "proxy_buffering off;", id="events held back"),
        pytest.param(COMPRESSES, {"compression"}, "gzip off;", id="compressed"),
        pytest.param(STRIPS, {"comments"}, "sub_filter", id="comments taken out"),
        pytest.param(
            HIDES,
            {"hang-up within a stream", "hang-up before an answer"},
            "proxy_ignore_client_abort off;",
            id="hang-ups not passed on",
        ),
        pytest.param(
            IMPATIENT,
            {"silence before an answer", "silence within a stream"},
            "proxy_read_timeout 3600s;",
            id="silence cut",
        ),
        pytest.param(NARROW, {"body"}, "client_max_body_size 2m;", id="large bodies refused"),
        pytest.param(ALLOWS_TWICE, {"CORS"}, "no add_header Access-Control-Allow-Origin", id="an origin twice"),
        pytest.param(TAKES_OPTIONS, {"CORS"}, "OPTIONS", id="preflight not passed on"),
        pytest.param(SPEAKS_HTML, {"errors"}, "error_page", id="errors in HTML"),
    ],
)
def test_each_mistake_is_found_and_its_line_named(
    server: LiveServer, wrong: dict[str, str], expected: set[str], line: str
) -> None:
    with nginx_in_front_of(server.url, wrong) as nginx:
        found = examine(nginx.url, "--origin", ORIGIN, code=1)
    assert bads(found) == expected
    for name in expected:
        assert any(line in change for change in found[name]["change"]), found[name]


def test_a_reload_that_cuts_is_found(server: LiveServer) -> None:
    with nginx_in_front_of(
        server.url, main={"worker_shutdown_timeout 3600s;": "worker_shutdown_timeout 500ms;"}
    ) as nginx:
        reload = f"kill -HUP {nginx.process.pid}"
        found = examine(nginx.url, "--reload", reload, "--reload-seconds", "4", code=1)
    assert bads(found) == {"reload"}
    assert "worker_shutdown_timeout" in found["reload"]["change"][0]


def test_the_servers_own_mistakes_are_told_as_its_own() -> None:
    settings = {"MAX_REQUEST_BYTES": "3000000", "HALF_CLOSE_IS_DISCONNECT": "false"}
    with LiveServer(settings) as server:
        found = examine(server.url, "--origin", ORIGIN, code=1)
    # Of a stream the client may leave something unread, and is then told apart from one that waits.
    assert bads(found) - {"hang-up within a stream"} == {"body", "CORS", "hang-up before an answer"}
    assert found["body"]["change"] == ["here: MAX_REQUEST_BYTES=4194304"]
    assert found["CORS"]["change"] == [f"here: CORS_ALLOW_ORIGINS={ORIGIN}"]
    assert "here: HALF_CLOSE_IS_DISCONNECT=true" in found["hang-up before an answer"]["change"]


def test_before_another_server_only_the_way_is_examined() -> None:
    with MockUpstream() as other:
        found = examine(other.url, code=0)
    assert found["answers"]["outcome"] == "not checked"
    assert found["body"]["outcome"] == "good"


def test_without_the_key_it_says_what_is_missing() -> None:
    with LiveServer({"API_KEYS": "sk-mine"}) as server:
        command = [sys.executable, "-m", "openai_compat", "doctor", server.url, *QUICK]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert "--api-key" in done.stderr
        told = subprocess.run([*command, "--api-key", "sk-mine"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout
    assert "✓ events: they come as they are sent" in told.stdout
    assert told.stdout.endswith("nothing to change\n")


def test_nobody_there_is_said_plainly() -> None:
    command = [sys.executable, "-m", "openai_compat", "doctor", "http://127.0.0.1:1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be examined" in done.stderr


def test_the_nginx_used_here_is_the_shipped_one(server: LiveServer) -> None:
    """Each mistake replaces a line that is there: a line that is no longer would make its test prove nothing."""
    with (
        pytest.raises(AssertionError, match="no longer in the configuration"),
        nginx_in_front_of(server.url, {"no such line": ""}) as nginx,
    ):
        assert isinstance(nginx, Nginx)
