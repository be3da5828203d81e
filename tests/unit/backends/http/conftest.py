"""The transport adapter, a certificate, and a port that accepts no connection."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from openai_compat.backends.http.transport import LlhttpAdapter
from tests.support.tools import require_tool


@pytest.fixture
def adapter() -> Iterator[LlhttpAdapter]:
    adapter = LlhttpAdapter()
    yield adapter
    adapter.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a file with a key and a self-signed certificate for localhost."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run([require_tool("openssl"), *command, *names], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
def unresponsive_port() -> Iterator[int]:
    """Yield a port whose listener neither accepts nor refuses connections, because its queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as waiting:
        address = listener.getsockname()
        for _ in range(4):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(address)
        time.sleep(0.05)
        yield address[1]
