"""`FastChunkedReader` reads every chunked body as gunicorn's own class does, with the same result or the same error."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader, Unreader

from openai_compat.server.chunked_body import FastChunkedReader

HEAD = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
CONFIGURATION = Config()
NEXT = b"GET / HTTP/1.1\r\n\r\n"
ODD = [
    b"2\r\nabX", b"2;a=b\r\nab\r\n", b"02\r\nab\r\n", b"A\r\n0123456789\r\n", b"a\r\n0123456789\r\n", b"\r\n", b"g\r\n",
    b"-1\r\na\r\n", b"1\nx\r\n", b"1 \r\nx\r\n", b"4\r\n\r\n\r\n\r\n", b"ff\r\n" + b"f" * 255 + b"\r\n",
    b"fff\r\nshort", b"100\r\n" + b"x" * 256 + b"\r\n", b"1\r\nx\r", b"+1\r\nx\r\n", b"0x1\r\nx\r\n",
]  # fmt: skip


def generate_bodies(count: int) -> Iterator[bytes]:
    """Yield chunked bodies, some with an unusual or invalid chunk. The same ones are used in every run."""
    generator = random.Random(11)
    for _ in range(count):
        chunks = []
        for _ in range(generator.randint(0, 40)):
            content = generator.randbytes(generator.choice([1, 1, 1, 2, 9, 200, 300]))
            chunks.append(b"%x\r\n%b\r\n" % (len(content), content))
        if generator.random() < 0.5:
            chunks.insert(generator.randint(0, len(chunks)), generator.choice(ODD))
        yield b"".join(chunks) + generator.choice([b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"0\r\n", b""])


def read(reader_class: type[ChunkedReader], body: bytes, block: int) -> Any:
    """Return the content and what follows it, or the class of the reader's error."""
    data = body + NEXT
    unreader = IterUnreader([data[start : start + block] for start in range(0, len(data), block)])
    request = Request(CONFIGURATION, IterUnreader([HEAD]), ("127.0.0.1", 1), 1)
    reader = reader_class(request, unreader)
    try:
        content = b"".join(iter(lambda: reader.read(50), b""))
    except (ParseException, OSError) as error:
        return type(error)
    return content, unreader.read(len(NEXT))


@pytest.mark.parametrize("block", [1, 7, 64, 8192])
def test_the_result_equals_gunicorns(block: int) -> None:
    outcomes = set()
    for body in generate_bodies(300):
        expected = read(ChunkedReader, body, block)
        assert read(FastChunkedReader, body, block) == expected, body
        outcomes.add(expected if isinstance(expected, type) else "valid")
    assert {"valid"} < outcomes, "the test needs both valid and invalid bodies"


def test_gunicorn_does_not_parse_each_small_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    parse_chunk_size = ChunkedReader.parse_chunk_size

    def count(reader: ChunkedReader, unreader: Unreader, data: bytes | None = None) -> Any:
        parsed.append(data)
        return parse_chunk_size(reader, unreader, data)

    monkeypatch.setattr(ChunkedReader, "parse_chunk_size", count)
    content, _ = read(FastChunkedReader, b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n", 8192)
    assert content == b"x" * 10_000
    assert len(parsed) < 50
