"""Wire protocol between a worker and the Haystack sidecar, one JSON object a line over a Unix socket.

The worker sends one request. The sidecar may first report the request's adaptations, then sends deltas, and ends with
`{"end": true}` or `{"error": ...}`. A connection that closes without either is a truncated answer. The worker
disconnects to cancel the call.
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
"""Key of the message that lists the parameters which were changed or dropped for a model."""


def send_line(sock: socket.socket, value: Mapping[str, Any]) -> None:
    """Send one message. `json.dumps` escapes line feeds, so a message never contains one."""
    sock.sendall(json.dumps(value, separators=(",", ":")).encode() + b"\n")


class LineReader:
    """Reader of the messages that arrive at a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lines: Iterator[bytes] = iter(())
        self._rest: list[bytes] = []

    def read(self) -> JSON | None:
        """Return the next message, or None if the remote side closed the connection.

        A timeout keeps the bytes that were read, so the caller may read again.

        Raises:
            TimeoutError: the socket's timeout passed.
            OSError: the connection failed.
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
    """Return the fields of the delta that are set."""
    return {name: value for name, value in asdict(delta).items() if value not in (None, (), [], 0)}


def delta_from_json(value: JSON) -> ChatDelta:
    """Build a delta from its JSON form. The argument is modified."""
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
    """Return the error's class name and the fields that a client sees."""
    fields: JSON = {"kind": type(error).__name__, "message": error.message, "param": error.param, "code": error.code}
    if isinstance(error, UpstreamStatusError):
        fields |= {"upstream_status": error.upstream_status, "type": error.type, "headers": error.headers}
    return fields


def error_from_json(fields: JSON) -> OpenAICompatError:
    """Build the error from its JSON form.

    The class's own `__init__` is skipped, because it would build the message that `fields` already has.
    """
    kind = getattr(errors, fields.pop("kind"), InternalError)
    error: OpenAICompatError = kind.__new__(kind)
    OpenAICompatError.__init__(error, fields.pop("message"), param=fields.pop("param"), code=fields.pop("code"))
    for name, value in fields.items():
        setattr(error, name, value)
    return error
