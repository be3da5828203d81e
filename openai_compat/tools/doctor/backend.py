"""The model that `python -m openai_compat doctor` asks: it speaks and is silent as it is told to, and says when.

It stands where any model stands, behind everything that is between a client and this server, and takes nobody's money.
No list shows it. The last message is a JSON object: `pauses`, seconds before each of its words; `comments`, whether its
silence may be filled; `id`, a name for the call; or `about`, the name of an earlier call, to hear what became of it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from openai_compat.backends.base import Backend, SupportsChat
from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.settings import ModelConfig
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest

log = logging.getLogger(__name__)

DOCTOR_MODEL: Final = "openai-compat-doctor"
DOCTOR_ENTRY: Final = ModelConfig(DOCTOR_MODEL, "doctor")
MAX_PAUSES: Final = 10_000
MAX_SECONDS: Final = 3600.0
RECORD_TTL: Final = 600.0


class DoctorBackend(Backend, SupportsChat):
    """Each word is a line of JSON: `{"at": seconds since the call began}`."""

    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta | Heartbeat]:
        """Raises PayloadError for a message that is no instruction."""
        order = _parse_command(request)
        if "about" in order:
            return iter([_event(_DisconnectLog().recall(str(order["about"]))), ChatDelta(finish_reason="stop")])
        pauses = [float(pause) for pause in order.get("pauses", [])]
        if len(pauses) > MAX_PAUSES or not all(pause >= 0 for pause in pauses) or sum(pauses) > MAX_SECONDS:
            raise InvalidRequestError("pauses must be seconds, an hour in all at most", param="messages")
        return _speak(pauses, context, name=str(order.get("id", "")), supports_comments=bool(order.get("comments")))


def _parse_command(request: ChatRequest) -> dict[str, Any]:
    content = request.messages[-1].get("content")
    try:
        order = json.loads(content if isinstance(content, str) else "")
        if isinstance(order, dict) and isinstance(order.get("pauses", []), list):
            [float(pause) for pause in order.get("pauses", [])]
            return order
    except (ValueError, TypeError):
        pass
    raise InvalidRequestError("This model takes orders from `python -m openai_compat doctor` only.", param="messages")


def _event(value: dict[str, Any]) -> ChatDelta:
    return ChatDelta(content=json.dumps(value) + "\n")


def _speak(
    pauses: list[float], context: CallContext, *, name: str, supports_comments: bool
) -> Iterator[ChatDelta | Heartbeat]:
    began = time.monotonic()
    if name:
        context.cancellation.on_cancel(lambda: _DisconnectLog().keep(name, time.monotonic() - began))
    for pause in pauses:
        if supports_comments:
            context.cancellation.wait(pause / 2)
            yield HEARTBEAT
            pause /= 2
        context.cancellation.wait(pause)
        yield _event({"at": round(time.monotonic() - began, 3)})
    yield ChatDelta(finish_reason="stop")


class _DisconnectLog:
    """When clients left, for every worker of this machine: the one that is asked need not be the one that was left."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.gettempdir(), f"openai-compat-doctor-{os.getuid()}")

    def keep(self, name: str, seconds: float) -> None:
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            if self._is_own():
                self._forget_old()
                self._file(name).write_text(f"{seconds:.3f}")
        except OSError as error:
            log.warning("the doctor will not hear of a client that left: %s", error)

    def recall(self, name: str) -> dict[str, Any]:
        try:
            return {"left_at": float(self._file(name).read_text())} if self._is_own() else {"left_at": None}
        except (OSError, ValueError):
            return {"left_at": None}

    def _file(self, name: str) -> Path:
        return self._folder / hashlib.sha256(name.encode()).hexdigest()[:32]

    def _is_own(self) -> bool:
        """Everybody may write to the folder above: another's could lead anywhere."""
        status = self._folder.lstat()
        return status.st_uid == os.getuid() and not self._folder.is_symlink()

    def _forget_old(self) -> None:
        for file in self._folder.iterdir():
            if file.stat().st_mtime < time.time() - RECORD_TTL:
                file.unlink(missing_ok=True)
