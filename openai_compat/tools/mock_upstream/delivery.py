"""Behaviours of models that deliver a healthy answer slowly, in unusual parts, or incompletely.

Each function receives the exchange and the healthy answer. `faults.py` assigns them to models.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence

from .answers import JSON_TYPE, MockAnswer
from .exchange import Exchange

_ASCII_RUN_OR_BYTE = re.compile(rb"[\x00-\x7f]+|[\x80-\xff]")
_RESET_DELAY = 0.02  # a reset makes the client's kernel discard what the client has not read


def send_healthy(exchange: Exchange, answer: MockAnswer) -> None:
    """Send the answer as OpenAI does."""
    if answer.is_stream:
        trickle(exchange, answer)
    else:
        exchange.pause(answer.options.delay)
        exchange.respond(200, JSON_TYPE, b"".join(answer.parts))


def trickle(exchange: Exchange, answer: MockAnswer) -> None:
    """Send the answer part by part, even if it is not streamed."""
    send_parts(exchange, answer, answer.parts)


def send_parts(exchange: Exchange, answer: MockAnswer, parts: Iterable[bytes]) -> None:
    """Send `parts` in place of the answer's own, each in a write of its own, and end the body properly."""
    exchange.start(answer.content_type)
    write_parts(exchange, answer, parts)
    exchange.finish()


def write_parts(exchange: Exchange, answer: MockAnswer, parts: Iterable[bytes]) -> None:
    """Send the parts with the answer's delay between them."""
    delay = answer.options.delay
    for number, part in enumerate(parts):
        if number and delay:
            exchange.pause(delay)
        exchange.send(part)


def send_until_fault(exchange: Exchange, answer: MockAnswer) -> Sequence[bytes]:
    """Send the parts before the fault and return the remaining ones."""
    exchange.start(answer.content_type)
    write_parts(exchange, answer, answer.parts_before_fault)
    return answer.parts[len(answer.parts_before_fault) :]


def cut(exchange: Exchange, answer: MockAnswer) -> None:
    """End the body early, but properly for HTTP."""
    send_until_fault(exchange, answer)
    exchange.finish()


def cut_mid_event(exchange: Exchange, answer: MockAnswer) -> None:
    """Close the connection in the middle of an event."""
    for event in send_until_fault(exchange, answer)[:1]:
        exchange.send_half(event)
    exchange.close_early()


def reset(exchange: Exchange, answer: MockAnswer) -> None:
    """Reset the connection after some parts."""
    send_until_fault(exchange, answer)
    exchange.pause(_RESET_DELAY)
    exchange.reset()


def reset_before(exchange: Exchange, _answer: MockAnswer) -> None:
    """Reset the connection before the first byte."""
    exchange.reset()


def close_before(exchange: Exchange, _answer: MockAnswer) -> None:
    """Close the connection before the first byte."""
    exchange.close_early()


def stall(exchange: Exchange, answer: MockAnswer) -> None:
    """Stop sending after some parts, and keep the connection open."""
    send_until_fault(exchange, answer)
    exchange.hang()


def hang(exchange: Exchange, _answer: MockAnswer) -> None:
    """Wait until the client disconnects, without a response."""
    exchange.hang()


def hang_headers(exchange: Exchange, answer: MockAnswer) -> None:
    """Send the header block and nothing more."""
    exchange.start(answer.content_type)
    exchange.hang()


def slow_first(exchange: Exchange, answer: MockAnswer) -> None:
    """Wait before the first byte, then send everything at once."""
    exchange.pause(answer.options.delay)
    exchange.start(answer.content_type)
    exchange.send(b"".join(answer.parts))
    exchange.finish()


def split_utf8(exchange: Exchange, answer: MockAnswer) -> None:
    """Send every byte of a character outside ASCII in a write of its own."""
    split = (match.group() for part in answer.parts for match in _ASCII_RUN_OR_BYTE.finditer(part))
    send_parts(exchange, answer, split)


def one_byte(exchange: Exchange, answer: MockAnswer) -> None:
    """Send every byte in a write of its own."""
    send_parts(exchange, answer, (bytes([byte]) for part in answer.parts for byte in part))


def crlf(exchange: Exchange, answer: MockAnswer) -> None:
    """End lines with CR LF."""
    send_parts(exchange, answer, [part.replace(b"\n", b"\r\n") for part in answer.parts])


def comments(exchange: Exchange, answer: MockAnswer) -> None:
    """Add comments and the fields event, id and retry to the events of a stream."""
    if not answer.is_stream:
        send_healthy(exchange, answer)
        return
    prefix = b": ping\n\nevent: message\nid: %d\nretry: 3000\n"
    send_parts(exchange, answer, [prefix % number + part for number, part in enumerate(answer.parts)])


def coalesced(exchange: Exchange, answer: MockAnswer) -> None:
    """Send everything in a single write."""
    send_parts(exchange, answer, [b"".join(answer.parts)])


def compressed(exchange: Exchange, answer: MockAnswer) -> None:
    """Send the answer in gzip, even if the client does not accept it, and flush after each part."""
    compressor = zlib.compressobj(wbits=31)
    exchange.start(answer.content_type, {"content-encoding": "gzip"})
    compressed_parts = (compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH) for part in answer.parts)
    write_parts(exchange, answer, compressed_parts)
    exchange.send(compressor.flush())
    exchange.finish()


def close_delimited(exchange: Exchange, answer: MockAnswer) -> None:
    """Send neither a content-length nor HTTP chunks, so that the body ends with the connection."""
    exchange.start_unframed(answer.content_type)
    write_parts(exchange, answer, answer.parts)
    exchange.finish()


def interim(exchange: Exchange, answer: MockAnswer) -> None:
    """Send an interim response before the real one."""
    exchange.send_raw(b"HTTP/1.1 %d Interim\r\nlink: </style.css>; rel=preload\r\n\r\n" % answer.options.code)
    send_healthy(exchange, answer)


def truncated_length(exchange: Exchange, answer: MockAnswer) -> None:
    """Send a content-length larger than the body."""
    body = b"".join(answer.parts)
    exchange.start_sized(answer.content_type, len(body) + 100)
    exchange.send(body)
    exchange.close_early()


def empty(exchange: Exchange, answer: MockAnswer) -> None:
    """Return 200 with an empty body."""
    exchange.respond(200, answer.content_type, b"")
