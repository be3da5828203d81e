"""`FastRequest` parses every request as gunicorn's own class does, with the same result or the same error."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import LimitRequestHeaders, ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader, Unreader

from openai_compat.server import request_parser
from openai_compat.server.request_parser import MAX_CACHED_REQUEST_LINES, MAX_HEAD_BYTES, FastRequest, http_date

COMMON = [
    "Host: example.com", "User-Agent: OpenAI/Python 3.5", "Content-Type: application/json", "Content-Length: 0",
    "Accept:*/*", "Authorization:  Bearer sk-1 ", "X-Empty:", "X-Latin: caf\xe9", "X-Tab:\ta\tb\t", "Connection: close",
]  # fmt: skip
UNUSUAL = [
    "X-Forwarded-Proto: https", "X-Forwarded-Protocol: ssl", "X-Forwarded-Proto: http", "X_Forwarded_For: 1.2.3.4",
    "Expect: 100-continue", "Expect: the best", "Host: other.example", "Content-Type: text/plain", "Content-Length: 1",
    "Transfer-Encoding: chunked", "Transfer-Encoding: gzip", "No colon", ": no name", "Bad name: x", "Name : x",
    "X-Null: a\x00b", "X-Return: a\rb", "X-Line: a\nb", "X-Delete: \x7f", " folded", "\tfolded", "", "X-\xe9: y",
    "X-Forwarded-For: 1.2.3.4", "Script_Name: /x", "SCRIPT-NAME: /x", "X-Long: " + "a" * 9000, "Trailer: X-Sum",
]  # fmt: skip
LINES = [
    "POST /v1/chat/completions HTTP/1.1", "GET /v1/models?after=1#x HTTP/1.1", "GET / HTTP/1.0", "OPTIONS * HTTP/1.1",
    "GET * HTTP/1.1", "get / HTTP/1.1", "GET / HTTP/2.0", "GET /caf\xe9 HTTP/1.1", "GET  / HTTP/1.1", "GET /",
    "CONNECT example.com:443 HTTP/1.1", "GET http://example.com/x HTTP/1.1", "GET //x HTTP/1.1",
]  # fmt: skip


def generate_requests(count: int) -> Iterator[bytes]:
    """Yield requests with up to three unusual headers each, the same ones in every run."""
    generator = random.Random(7)
    for _ in range(count):
        common = generator.sample(COMMON, generator.randint(0, len(COMMON)))
        headers = common + generator.sample(UNUSUAL, generator.randint(0, 3))
        generator.shuffle(headers)
        line = LINES[0] if generator.random() < 0.7 else generator.choice(LINES)
        yield "".join(f"{part}\r\n" for part in [line, *headers, ""]).encode("latin-1")


def parse(request_class: type[Request], data: bytes, client: str, configuration: Config, block: int = 65_536) -> object:
    """Return every value of the parsed request, or the class of the parser's error."""
    blocks = [data[start : start + block] for start in range(0, len(data), block)]
    try:
        request = request_class(configuration, IterUnreader(blocks), (client, 5000), 1)
    except (ParseException, StopIteration) as error:
        return type(error)
    line = (request.method, request.uri, request.path, request.query, request.fragment, request.version)
    return (*line, request.headers, request.scheme, request.should_close(), request._expected_100_continue)


@pytest.mark.parametrize("client", ["127.0.0.1", "10.0.0.9"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"header_map": "refuse"}, {"limit_request_fields": 4}, {"limit_request_field_size": 24}],
    ids=["defaults", "underscores refused", "few fields", "short fields"],
)
def test_the_result_equals_gunicorns(client: str, settings: dict[str, Any]) -> None:
    configuration = Config()
    for name, value in settings.items():
        configuration.set(name, value)
    outcomes = set()
    for data in generate_requests(1500):
        expected = parse(Request, data, client, configuration)
        assert parse(FastRequest, data, client, configuration) == expected, data
        outcomes.add(expected if isinstance(expected, type) else "valid")
    assert {"valid"} < outcomes, "the test needs both valid and invalid requests"


def test_the_result_is_the_same_for_a_request_that_arrives_byte_by_byte() -> None:
    configuration = Config()
    for data in [
        *generate_requests(300),
        b"GET / HTTP/1.1\n\n",
        b"\r\nGET / HTTP/1.1\r\n\r\n",
        b"\r\n\r\nGET",
        b"a" * 9000,
    ]:
        dripped = parse(FastRequest, data, "127.0.0.1", configuration, block=1)
        assert dripped == parse(Request, data, "127.0.0.1", configuration, block=1), data


def test_gunicorn_scans_a_head_once_that_arrives_byte_by_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """gunicorn copies and scans the whole head after each call of `read_into`."""
    calls: list[int] = []
    read_into = FastRequest.read_into

    def count(request: FastRequest, unreader: Unreader, buf: bytearray, stop: bool | None = False) -> None:
        calls.append(len(buf))
        read_into(request, unreader, buf, stop)

    monkeypatch.setattr(FastRequest, "read_into", count)
    head = b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: %b\r\n" % (n, b"a" * 8000) for n in range(8)) + b"\r\n"
    assert parse(FastRequest, head, "127.0.0.1", Config(), block=1) != LimitRequestHeaders
    assert calls == [0]


@pytest.mark.parametrize("block", [1, 1000, 8192])
def test_a_head_has_at_most_64_kib(block: int) -> None:
    configuration = Config()
    configuration.set("limit_request_field_size", 70_000)
    line = b"GET / HTTP/1.1\r\nX: "
    for size, is_accepted in ((MAX_HEAD_BYTES, True), (MAX_HEAD_BYTES + 1, False)):
        head = line + b"a" * (size - len(line)) + b"\r\n\r\n"
        outcome = parse(FastRequest, head, "127.0.0.1", configuration, block)
        assert (outcome != LimitRequestHeaders) == is_accepted


def test_the_cache_of_request_lines_is_bounded() -> None:
    configuration = Config()
    for number in range(3 * MAX_CACHED_REQUEST_LINES):
        line = f"GET /v1/models/{number} HTTP/1.1\r\n\r\n".encode()
        for _ in range(2):
            request = FastRequest(configuration, IterUnreader([line]), ("127.0.0.1", 1), 1)
            assert request.path == f"/v1/models/{number}"
    assert len(request_parser._request_lines) <= MAX_CACHED_REQUEST_LINES


def test_the_date_is_the_current_time_in_the_format_of_http() -> None:
    before = int(time.time())
    date = http_date()
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", date)
    assert before <= parsedate_to_datetime(date).timestamp() <= time.time()
    assert http_date(0) == "Thu, 01 Jan 1970 00:00:00 GMT"
