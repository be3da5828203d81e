"""Diagnostic model of `python -m openai_compat doctor`.

The model is served like any other, behind the same proxies, but calls no upstream and appears in no list. The last
message is a command, a JSON object in one of two forms:

- `pauses`: the seconds before each event of the answer. `comments` fills the pauses with comments, `id` names the call.
- `query`: the `id` of an earlier call. The answer contains when its client disconnected, as `disconnected_at`.

A command line and a server of different versions understand each other. `about` and `left_at` are the former names of
`query` and `disconnected_at`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, Final

from openai_compat.backends.base import Backend, SupportsChat
from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.settings import ModelConfig
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest

from .disconnect_log import DisconnectLog

DOCTOR_MODEL: Final = "openai-compat-doctor"
DOCTOR_ENTRY: Final = ModelConfig(DOCTOR_MODEL, "doctor")
MAX_PAUSES: Final = 10_000
MAX_SECONDS: Final = 3600.0


class DoctorBackend(Backend, SupportsChat):
    """Backend of the diagnostic model. Each event is a line of JSON, `{"at": seconds since the call began}`."""

    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta | Heartbeat]:
        """Execute the command in the last message.

        Raises:
            InvalidRequestError: the message is not a command, or its pauses are too many or too long.
        """
        command = _parse_command(request)
        query = command.get("query", command.get("about"))
        if query is not None:
            seconds = DisconnectLog().lookup(str(query))
            return iter([_event({"disconnected_at": seconds, "left_at": seconds}), ChatDelta(finish_reason="stop")])
        pauses = [float(pause) for pause in command.get("pauses", [])]
        if len(pauses) > MAX_PAUSES or not all(pause >= 0 for pause in pauses) or sum(pauses) > MAX_SECONDS:
            raise InvalidRequestError("pauses must be seconds, at most an hour in total", param="messages")
        call_id, sends_comments = str(command.get("id", "")), bool(command.get("comments"))
        return _stream(pauses, context, call_id=call_id, sends_comments=sends_comments)


def _parse_command(request: ChatRequest) -> dict[str, Any]:
    content = request.messages[-1].get("content")
    try:
        command = json.loads(content if isinstance(content, str) else "")
        if isinstance(command, dict) and isinstance(command.get("pauses", []), list):
            [float(pause) for pause in command.get("pauses", [])]
            return command
    except (ValueError, TypeError):
        pass
    raise InvalidRequestError("This model accepts commands of `python -m openai_compat doctor` only.", param="messages")


def _event(value: dict[str, Any]) -> ChatDelta:
    return ChatDelta(content=json.dumps(value) + "\n")


def _stream(
    pauses: list[float], context: CallContext, *, call_id: str, sends_comments: bool
) -> Iterator[ChatDelta | Heartbeat]:
    started = time.monotonic()
    if call_id:
        context.cancellation.on_cancel(lambda: DisconnectLog().record(call_id, time.monotonic() - started))
    for pause in pauses:
        if sends_comments:
            context.cancellation.wait(pause / 2)
            yield HEARTBEAT
            pause /= 2
        context.cancellation.wait(pause)
        yield _event({"at": round(time.monotonic() - started, 3)})
    yield ChatDelta(finish_reason="stop")
