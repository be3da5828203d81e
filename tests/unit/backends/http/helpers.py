"""Requests through the transport adapter, and servers for it, that several test modules use."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from pathlib import Path

from requests import PreparedRequest, Response

from openai_compat.backends.http.transport import LlhttpAdapter
from tests.support.raw_server import RawServer, Script, read_request, wait_for_close

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\nx-a: 2\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
UNFINISHED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n"


def send(adapter: LlhttpAdapter, url: str, method: str = "GET", **options: object) -> Response:
    """Send a request. `body` and `headers` belong to the request, all other options to `LlhttpAdapter.send`."""
    request = PreparedRequest()
    request.method, request.url, request.body = method, url, options.pop("body", None)  # type: ignore[assignment]
    request.headers = options.pop("headers", {})  # type: ignore[assignment]
    return adapter.send(request, **options)  # type: ignore[arg-type]


def read(response: Response) -> bytes:
    """Read the body to its end."""
    blocks = []
    while block := response.raw.read1():
        blocks.append(block)
    return b"".join(blocks)


def record_into(requests: list[bytes]) -> Script:
    """Return a script that appends a request to `requests` and answers it with `OK`."""

    def script(client: socket.socket) -> None:
        requests.append(read_request(client))
        client.sendall(OK)

    return script


def stalled_after(response: bytes) -> RawServer:
    """Return a server that sends `response` to a request and then nothing more."""

    def script(client: socket.socket) -> None:
        read_request(client)
        client.sendall(response)
        wait_for_close(client)

    return RawServer(script)


def over_tls(certificate: Path, script: Script) -> Script:
    """Return a script that runs `script` over TLS."""

    def serve(client: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        with suppress(ssl.SSLError), context.wrap_socket(client, server_side=True) as wrapped:
            script(wrapped)

    return serve
