"""What a worker and the process of the pipelines say to each other: JSON, a line each, over a Unix socket.

The worker sends one request. What was adapted for the pipeline's models may come back first, then pieces, until
`{"end": true}` or `{"error": ...}`. A connection that ends without either was cut. The worker hangs up when nobody
waits for the answer any more.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from openai_compat.core import errors
from openai_compat.core.errors import InternalError, OpenAICompatError, UpstreamStatusError
from openai_compat.core.types import ChatDelta, TokenLogprob, ToolCallDelta, Usage

JSON = dict[str, Any]
RECEIVE_BYTES: Final = 65_536
END: Final[JSON] = {"end": True}
ADAPTED: Final = "adapted"
"""The key of a message that tells what of the request a model did not get as it was."""


def send_line(sock: socket.socket, value: Mapping[str, Any]) -> None:
    """One message; `json.dumps` puts no line feed into it."""
    sock.sendall(json.dumps(value, separators=(",", ":")).encode() + b"\n")


class LineReader:
    """The messages that arrive at a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lines: Iterator[bytes] = iter(())
        self._rest: list[bytes] = []

    def read(self) -> JSON | None:
        """The next message, or None where the peer hung up. A time limit of the socket loses nothing.

        Raises:
            TimeoutError, OSError: the socket's own.
        """
        while True:
            for line in self._lines:
                message: JSON = json.loads(line)
                return message
            block = self._sock.recv(RECEIVE_BYTES)
            if not block:
                return None
            *lines, rest = block.split(b"\n")
            if lines:
                lines[0] = b"".join([*self._rest, lines[0]])
                self._rest.clear()
                self._lines = iter(lines)
            self._rest.append(rest)


def delta_to_json(delta: ChatDelta) -> JSON:
    """What the delta says; its other fields are left out."""
    return {name: value for name, value in asdict(delta).items() if value not in (None, (), [], 0)}


def delta_from_json(value: JSON) -> ChatDelta:
    if "tool_calls" in value:
        value["tool_calls"] = [ToolCallDelta(**call) for call in value["tool_calls"]]
    if "logprobs" in value:
        value["logprobs"] = [_logprob_from_json(logprob) for logprob in value["logprobs"]]
    if "usage" in value:
        value["usage"] = Usage(**value["usage"])
    return ChatDelta(**value)


def _logprob_from_json(value: JSON) -> TokenLogprob:
    top = [(token, logprob) for token, logprob in value["top"]]
    return TokenLogprob(value["token"], value["logprob"], top)


def error_to_json(error: OpenAICompatError) -> JSON:
    """The error by the name of its class, with what a client is told of it."""
    facts: JSON = {"kind": type(error).__name__, "message": error.message, "param": error.param, "code": error.code}
    if isinstance(error, UpstreamStatusError):
        facts |= {"upstream_status": error.upstream_status, "type": error.type, "headers": error.headers}
    return facts


def error_from_json(facts: JSON) -> OpenAICompatError:
    """The same error again. Its class's own way to make one is passed by: the words are there already."""
    kind = getattr(errors, facts.pop("kind"), InternalError)
    error: OpenAICompatError = kind.__new__(kind)
    OpenAICompatError.__init__(error, facts.pop("message"), param=facts.pop("param"), code=facts.pop("code"))
    for name, value in facts.items():
        setattr(error, name, value)
    return error
