"""`heads.QuickRequest` reads every head as gunicorn's own request does: the same fields, or the same refusal."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader

from openai_compat.server.request_parser import MAX_CACHED_REQUEST_LINES, FastRequest, http_date

PLAIN = [
    "Host: example.com", "User-Agent: OpenAI/Python 3.5", "Content-Type: application/json", "Content-Length: 0",
    "Accept:*/*", "Authorization:  Bearer sk-1 ", "X-Empty:", "X-Latin: caf\xe9", "X-Tab:\ta\tb\t", "Connection: close",
]  # fmt: skip
ODD = [
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


def heads(count: int) -> Iterator[bytes]:
    """Heads with up to three oddities each, the same in every run."""
    chance = random.Random(7)
    for _ in range(count):
        fields = chance.sample(PLAIN, chance.randint(0, len(PLAIN))) + chance.sample(ODD, chance.randint(0, 3))
        chance.shuffle(fields)
        line = LINES[0] if chance.random() < 0.7 else chance.choice(LINES)
        yield "".join(f"{part}\r\n" for part in [line, *fields, ""]).encode("latin-1")


def read(kind: type[Request], head: bytes, peer: str, settings: dict[str, Any]) -> object:
    configuration = Config()
    for name, value in settings.items():
        configuration.set(name, value)
    try:
        request = kind(configuration, IterUnreader([head]), (peer, 5000), 1)
    except (ParseException, StopIteration) as error:
        return type(error)
    facts = (request.method, request.uri, request.path, request.query, request.fragment, request.version)
    return (*facts, request.headers, request.scheme, request.should_close(), request._expected_100_continue)


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.0.0.9"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"header_map": "refuse"}, {"limit_request_fields": 4}, {"limit_request_field_size": 24}],
    ids=["defaults", "underscores refused", "few fields", "short fields"],
)
def test_every_head_is_read_as_gunicorn_reads_it(peer: str, settings: dict[str, Any]) -> None:
    outcomes = set()
    for head in heads(1500):
        expected = read(Request, head, peer, settings)
        assert read(FastRequest, head, peer, settings) == expected, head
        outcomes.add(expected if isinstance(expected, type) else "read")
    assert {"read"} < outcomes, "the heads must be of both kinds, or this shows nothing"


def test_request_lines_are_remembered_for_a_while_and_not_for_good() -> None:
    for number in range(3 * MAX_CACHED_REQUEST_LINES):
        line = f"GET /v1/models/{number} HTTP/1.1\r\n\r\n".encode()
        for _ in range(2):
            request = FastRequest(Config(), IterUnreader([line]), ("127.0.0.1", 1), 1)
            assert request.path == f"/v1/models/{number}"
    from openai_compat.server import request_parser as heads

    assert len(heads._request_lines) <= MAX_CACHED_REQUEST_LINES


def test_the_date_is_http_s_and_now() -> None:
    before = int(time.time())
    date = http_date()
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", date)
    assert before <= parsedate_to_datetime(date).timestamp() <= time.time()
    assert http_date(0) == "Thu, 01 Jan 1970 00:00:00 GMT"
