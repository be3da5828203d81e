"""Messages of Anthropic's protocol as chat messages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from openai_compat.core.anthropic import BILLING_PREFIX
from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.profiles import DROPPED
from openai_compat.core.turns import TimeSlices
from openai_compat.core.types import JSON
from openai_compat.services.request_fields import invalid_value, missing_parameter, object_at, text_at
from openai_compat.services.tool_names import to_chat_name

from .content import BLOCKS, blocks_at, join_parts, to_parts, to_text_part

ROLES: Final = ("user", "assistant", "system")
THINKING: Final = ("thinking", "redacted_thinking")
ERROR_PREFIX: Final = "Error: "
"""Beginning of a tool's result that is an error, for which chat has no field."""
JOINED: Final = ("tool_calls", "reasoning_details", "reasoning_content")
"""Parts of a message of the assistant that grow when another one follows it."""
SEE_NEXT: Final = "The result follows in the next message of the user."


class MessageBuilder:
    """Builder of the chat messages of one call.

    The results of tools directly follow the message with the calls, in the order of the calls. Their images and files
    follow as a message of the user, because chat models take only texts from tools. All system messages become the
    first message, because the templates of many models allow no other. Thinking goes back to the model only since the
    last turn of the user, which is where models need it. `adaptations` lists what was left out. Other calls get turns
    between the blocks, of which there may be very many.
    """

    def __init__(self) -> None:
        self.adaptations: dict[str, str] = {}
        self._system: list[str] = []
        self._messages: list[JSON] = []
        self._open_calls: dict[str, JSON | None] = {}
        self._parts: list[JSON] = []
        self._attachments: list[JSON] = []
        self._turn_start = 0
        self._slices = TimeSlices()

    def add_system(self, system: Any, path: str = "system") -> None:
        """Add the texts of instructions, without the block of Claude Code that differs between calls.

        Raises:
            InvalidRequestError: a block is malformed.
        """
        for block, at in blocks_at(system, path):
            kind = text_at(block, "type", at) if "type" in block else "text"
            if kind != "text":
                self.adaptations[f"{path.partition('[')[0]}.{kind}"] = DROPPED
                continue
            text = text_at(block, "text", at)
            if text and not text.startswith(BILLING_PREFIX):
                self._system.append(text)

    def add_all(self, messages: Iterable[Any]) -> None:
        """Add the conversation.

        Raises:
            InvalidRequestError: a message is malformed, or calls and results of tools do not match.
        """
        for index, message in enumerate(messages):
            path = f"messages[{index}]"
            role = text_at(object_at(message, path), "role", path)
            content, at = message.get("content"), f"{path}.content"
            if content is None and role == "system":
                continue
            if content is None:
                raise missing_parameter(at)
            if not isinstance(content, str | list):
                raise InvalidRequestError(
                    f"Invalid type for '{at}': expected a string or array of objects.", param=at, code="invalid_type"
                )
            if role == "system":
                self.add_system(content, at)
            elif role == "user":
                self._add_user(content, at)
            elif role == "assistant":
                self._add_assistant(content, at)
            else:
                raise invalid_value(role, f"{path}.role", ROLES)

    def build(self) -> list[JSON]:
        """Return the messages.

        Raises:
            InvalidRequestError: a tool call has no result.
        """
        self._flush_user()
        for message in self._messages[: self._turn_start]:
            message.pop("reasoning_content", None)
            message.pop("reasoning_details", None)
        system = [{"role": "system", "content": "\n\n".join(self._system)}] if self._system else []
        return [*system, *self._messages]

    def _add_user(self, content: str | list[Any], path: str) -> None:
        for block, at in blocks_at(content, path):
            self._slices.check()
            kind = text_at(block, "type", at)
            if kind == "tool_result":
                self._add_result(block, at)
            else:
                self._parts += self._to_parts(block, kind, at)

    def _to_parts(self, block: Mapping[str, Any], kind: str, path: str) -> list[JSON]:
        """Return the content parts of a block. A block that has no form in chat has none."""
        if kind in BLOCKS:
            return to_parts(block, path)
        self.adaptations[f"messages.{kind}"] = DROPPED
        return []

    def _add_result(self, block: Mapping[str, Any], path: str) -> None:
        call_id = text_at(block, "tool_use_id", path)
        if call_id not in self._open_calls:
            raise InvalidRequestError(
                f"Unexpected 'tool_use_id' in a 'tool_result': {call_id}. Each result must have its 'tool_use' in the "
                "previous message of the assistant.",
                param=f"{path}.tool_use_id",
            )
        content = blocks_at(block.get("content"), f"{path}.content")
        parts = [part for inner, at in content for part in self._to_parts(inner, text_at(inner, "type", at), at)]
        text = "\n".join(part["text"] for part in parts if part["type"] == "text")
        attached = [part for part in parts if part["type"] != "text"]
        if attached:
            self._attachments += [to_text_part(f"Result of the tool call {call_id}:"), *attached]
            text = text or SEE_NEXT
        if block.get("is_error") is True:
            text = ERROR_PREFIX + text
        self._open_calls[call_id] = {"role": "tool", "tool_call_id": call_id, "content": text}

    def _flush_user(self) -> None:
        """Add the results of tools and then the user's own message.

        Raises:
            InvalidRequestError: a result is missing.
        """
        for call_id, result in self._open_calls.items():
            if result is None:
                raise InvalidRequestError(
                    f"The 'tool_use' {call_id} has no 'tool_result'. Each call needs a result in the next message.",
                    param="messages",
                )
            self._messages.append(result)
        parts = [*self._attachments, *self._parts]
        if parts and not self._open_calls:
            self._turn_start = len(self._messages)
        self._open_calls = {}
        if parts:
            self._messages.append({"role": "user", "content": join_parts(parts)})
        self._attachments, self._parts = [], []

    def _add_assistant(self, content: str | list[Any], path: str) -> None:
        """Add a message of the assistant. If it says nothing, the user's messages around it become one."""
        message: JSON = {"role": "assistant", "content": ""}
        for block, at in blocks_at(content, path):
            self._slices.check()
            kind = text_at(block, "type", at)
            if kind == "text":
                message["content"] += text_at(block, "text", at)
            elif kind == "tool_use":
                message.setdefault("tool_calls", []).append(_to_call(block, at))
            elif kind in THINKING:
                _add_thinking(message, block)
            else:
                self.adaptations[f"messages.{kind}"] = DROPPED
        if message["content"] or "tool_calls" in message:
            self._join_assistant(message)

    def _join_assistant(self, message: JSON) -> None:
        """Add a message of the assistant. One that directly follows another is a part of it, as at Anthropic."""
        has_answer = self._parts or self._attachments or any(self._open_calls.values())
        if has_answer or not self._messages or self._messages[-1]["role"] != "assistant":
            self._flush_user()
            self._messages.append({**message, "content": message["content"] or None})
        else:
            before = self._messages[-1]
            before["content"] = (before["content"] or "") + message["content"] or None
            for key in JOINED:
                if key in message:
                    before[key] = before[key] + message[key] if key in before else message[key]
        self._open_calls |= {call["id"]: None for call in message.get("tool_calls", ())}


def _to_call(block: Mapping[str, Any], path: str) -> JSON:
    call_id, name = text_at(block, "id", path), to_chat_name(None, text_at(block, "name", path))
    arguments = json.dumps(block.get("input") or {}, ensure_ascii=False, separators=(",", ":"))
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _add_thinking(message: JSON, block: Mapping[str, Any]) -> None:
    """Add what the model thought. What is signed or encrypted is only read by the model that wrote it."""
    text, signature, data = block.get("thinking"), block.get("signature"), block.get("data")
    if data:
        message.setdefault("reasoning_details", []).append({"type": "reasoning.encrypted", "data": data})
    elif signature:
        detail = {"type": "reasoning.text", "text": text or "", "signature": signature}
        message.setdefault("reasoning_details", []).append(detail)
    elif text:
        message["reasoning_content"] = message.get("reasoning_content", "") + str(text)
