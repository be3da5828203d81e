"""A TCP server that sends exactly the bytes of a script."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

Script = Callable[[socket.socket], None]


class RawServer:
    """Server that runs in a `with` block. Each connection gets the next script, and the last script repeats.

    A script gets the connected socket, which is closed when the script returns. `connections` counts connections.
    """

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.connections = 0

    def __enter__(self) -> RawServer:
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None) -> None:
        # Closing alone does not end the wait in `accept`, which may then accept for the next socket with this number.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            script = self._scripts[min(self.connections, len(self._scripts) - 1)]
            self.connections += 1
            threading.Thread(target=self._serve, args=(script, client), daemon=True).start()

    @staticmethod
    def _serve(script: Script, client: socket.socket) -> None:
        with client:
            client.settimeout(20)
            with suppress(ConnectionError):  # the client may disconnect at any time
                script(client)


def read_request(client: socket.socket) -> bytes:
    """Return one request with its body, which has a Content-Length or is chunked."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _receive(client)
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    if lengths:
        while len(body) < int(lengths[0]):
            body += _receive(client)
    elif b"chunked" in head.lower():
        while not body.endswith(b"0\r\n\r\n"):
            body += _receive(client)
    return head + b"\r\n\r\n" + body


def _receive(client: socket.socket) -> bytes:
    data = client.recv(65536)
    if not data:
        raise ConnectionError("the client closed")
    return data


def answer_with(*answers: bytes) -> Script:
    """Return a script that reads a request before it sends each answer, all on one connection."""

    def script(client: socket.socket) -> None:
        for answer in answers:
            read_request(client)
            client.sendall(answer)

    return script


def answer_bytewise(answer: bytes) -> Script:
    """Return a script that reads a request and sends the answer one byte at a time."""

    def script(client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        read_request(client)
        for index in range(len(answer)):
            client.sendall(answer[index : index + 1])

    return script


def wait_for_close(client: socket.socket) -> None:
    """Discard what arrives until the client has closed the connection."""
    try:
        while client.recv(65536):
            pass
    except ConnectionError:
        pass
