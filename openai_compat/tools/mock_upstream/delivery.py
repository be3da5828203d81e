"""How an answer's bytes go out: healthy, slowly, in odd pieces, or not to the end.

Each function is the behaviour of a model (see `faults.py`): it gets the exchange and the healthy answer.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence

from .answers import JSON_TYPE, MockAnswer
from .exchange import Exchange

_ASCII_RUN_OR_BYTE = re.compile(rb"[\x00-\x7f]+|[\x80-\xff]")
_SETTLE_SECONDS = 0.02  # what was sent should be read before a reset makes the peer's kernel forget it


def send_healthy(exchange: Exchange, answer: MockAnswer) -> None:
    """Send the answer as OpenAI does."""
    if answer.is_stream:
        trickle(exchange, answer)
    else:
        exchange.pause(answer.options.delay)
        exchange.respond(200, JSON_TYPE, b"".join(answer.pieces))


def trickle(exchange: Exchange, answer: MockAnswer) -> None:
    """Send piece by piece, also what is not streamed."""
    send_pieces(exchange, answer, answer.pieces)


def send_pieces(exchange: Exchange, answer: MockAnswer, pieces: Iterable[bytes]) -> None:
    """Send `pieces` instead of the answer's own, each in its own write, and end properly."""
    exchange.start(answer.content_type)
    write_pieces(exchange, answer, pieces)
    exchange.finish()


def write_pieces(exchange: Exchange, answer: MockAnswer, pieces: Iterable[bytes]) -> None:
    """Send the pieces with the delay between them."""
    delay = answer.options.delay
    for number, piece in enumerate(pieces):
        if number and delay:
            exchange.pause(delay)
        exchange.send(piece)


def send_beginning(exchange: Exchange, answer: MockAnswer) -> Sequence[bytes]:
    """Send the pieces before the fault, and return those that should have followed."""
    exchange.start(answer.content_type)
    write_pieces(exchange, answer, answer.beginning)
    return answer.pieces[len(answer.beginning) :]


def cut(exchange: Exchange, answer: MockAnswer) -> None:
    """End early, but so that HTTP finds nothing missing."""
    send_beginning(exchange, answer)
    exchange.finish()


def cut_mid_event(exchange: Exchange, answer: MockAnswer) -> None:
    """Close the connection in the middle of an event."""
    for event in send_beginning(exchange, answer)[:1]:
        exchange.send_half(event)
    exchange.abandon()


def reset(exchange: Exchange, answer: MockAnswer) -> None:
    """Reset the connection after some pieces."""
    send_beginning(exchange, answer)
    exchange.pause(_SETTLE_SECONDS)
    exchange.reset()


def reset_before(exchange: Exchange, _answer: MockAnswer) -> None:
    """Reset the connection before any byte of an answer."""
    exchange.reset()


def close_before(exchange: Exchange, _answer: MockAnswer) -> None:
    """Close the connection before any byte of an answer."""
    exchange.abandon()


def stall(exchange: Exchange, answer: MockAnswer) -> None:
    """Fall silent after some pieces."""
    send_beginning(exchange, answer)
    exchange.hang()


def hang(exchange: Exchange, _answer: MockAnswer) -> None:
    """Never answer."""
    exchange.hang()


def hang_headers(exchange: Exchange, answer: MockAnswer) -> None:
    """Send the head and nothing more."""
    exchange.start(answer.content_type)
    exchange.hang()


def slow_first(exchange: Exchange, answer: MockAnswer) -> None:
    """Wait before the first byte, then send everything at once."""
    exchange.pause(answer.options.delay)
    exchange.start(answer.content_type)
    exchange.send(b"".join(answer.pieces))
    exchange.finish()


def split_utf8(exchange: Exchange, answer: MockAnswer) -> None:
    """Give every byte of a character outside ASCII a write of its own."""
    parts = (match.group() for piece in answer.pieces for match in _ASCII_RUN_OR_BYTE.finditer(piece))
    send_pieces(exchange, answer, parts)


def one_byte(exchange: Exchange, answer: MockAnswer) -> None:
    """Give every byte a write of its own."""
    send_pieces(exchange, answer, (bytes([byte]) for piece in answer.pieces for byte in piece))


def crlf(exchange: Exchange, answer: MockAnswer) -> None:
    """End lines with CR LF."""
    send_pieces(exchange, answer, [piece.replace(b"\n", b"\r\n") for piece in answer.pieces])


def comments(exchange: Exchange, answer: MockAnswer) -> None:
    """Put comments and fields that nobody needs between the events of a stream."""
    if not answer.is_stream:
        send_healthy(exchange, answer)
        return
    prefix = b": ping\n\nevent: message\nid: %d\nretry: 3000\n"
    send_pieces(exchange, answer, [prefix % number + piece for number, piece in enumerate(answer.pieces)])


def coalesced(exchange: Exchange, answer: MockAnswer) -> None:
    """Send everything in a single write."""
    send_pieces(exchange, answer, [b"".join(answer.pieces)])


def compressed(exchange: Exchange, answer: MockAnswer) -> None:
    """Compress with gzip, whatever the client accepts, and flush after each piece."""
    compressor = zlib.compressobj(wbits=31)
    exchange.start(answer.content_type, {"content-encoding": "gzip"})
    compressed_pieces = (compressor.compress(piece) + compressor.flush(zlib.Z_SYNC_FLUSH) for piece in answer.pieces)
    write_pieces(exchange, answer, compressed_pieces)
    exchange.send(compressor.flush())
    exchange.finish()


def close_delimited(exchange: Exchange, answer: MockAnswer) -> None:
    """Let the body end with the connection: no length, no chunks."""
    exchange.start_unframed(answer.content_type)
    write_pieces(exchange, answer, answer.pieces)
    exchange.finish()


def interim(exchange: Exchange, answer: MockAnswer) -> None:
    """Send an interim response before the real one."""
    exchange.send_raw(b"HTTP/1.1 %d Interim\r\nlink: </style.css>; rel=preload\r\n\r\n" % answer.options.code)
    send_healthy(exchange, answer)


def truncated_length(exchange: Exchange, answer: MockAnswer) -> None:
    """Promise more bytes than are sent."""
    body = b"".join(answer.pieces)
    exchange.start_sized(answer.content_type, len(body) + 100)
    exchange.send(body)
    exchange.abandon()


def empty(exchange: Exchange, answer: MockAnswer) -> None:
    """Answer 200 with no body."""
    exchange.respond(200, answer.content_type, b"")
