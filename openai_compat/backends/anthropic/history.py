"""Chat messages as messages and a system prompt of Anthropic's API."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.large_json import parse_json
from openai_compat.core.types import JSON, JSONObject

from .content import CACHE_CONTROL, to_blocks

INSTRUCTION_ROLES: Final = frozenset({"system", "developer"})
TOOL_ROLES: Final = frozenset({"tool", "function"})
THINKING: Final = frozenset({"thinking", "redacted_thinking"})
FORMAT_PREFIX: Final = "anthropic"
"""Beginning of the `format` of reasoning details that Claude wrote."""
_INVALID_IN_ID: Final = re.compile(r"[^\w-]", re.ASCII)


class MessageBuilder:
    """Builder of the messages of one call.

    Instructions anywhere become blocks of the system prompt. Messages of the same role in a row become one, so that
    the results of all calls of a turn are in one message, before what the user says next.
    """

    def __init__(self) -> None:
        self.system: list[JSON] = []
        self.messages: list[JSON] = []

    def add_all(self, messages: Sequence[JSONObject]) -> None:
        """Add messages in their order.

        Raises:
            InvalidRequestError: A message cannot be read.
        """
        for index, message in enumerate(messages):
            self._add(message, f"messages[{index}]")
        last = self.messages[-1] if self.messages else {}
        if last.get("role") == "assistant" and last["content"][-1]["type"] == "text":
            _strip_end(last["content"])

    @property
    def is_in_tool_loop_without_thinking(self) -> bool:
        """True if results follow calls without the reasoning before them. Claude then refuses to think on."""
        if not self.messages or self.messages[-1]["content"][0]["type"] != "tool_result":
            return False
        assistant = next((message for message in reversed(self.messages) if message["role"] == "assistant"), None)
        return assistant is not None and assistant["content"][0]["type"] not in THINKING

    def _add(self, message: JSONObject, path: str) -> None:
        role = message.get("role")
        content = message.get("content")
        if role in INSTRUCTION_ROLES:
            self.system += _mark(to_blocks(content, f"{path}.content"), message)
        elif role in TOOL_ROLES:
            self._append("user", [_to_result(message, path)])
        elif role == "assistant":
            blocks = [*_to_thinking(message), *to_blocks(content, f"{path}.content")]
            self._append("assistant", [*_mark(blocks, message), *_to_calls(message)])
        else:
            self._append("user", _mark(to_blocks(content, f"{path}.content"), message))

    def _append(self, role: str, blocks: list[JSON]) -> None:
        if not blocks:
            return
        if self.messages and self.messages[-1]["role"] == role:
            self.messages[-1]["content"] += blocks
        else:
            self.messages.append({"role": role, "content": blocks})


def _strip_end(blocks: list[JSON]) -> None:
    """Remove white space at the end of a beginning of the answer, which Anthropic refuses."""
    blocks[-1] = {**blocks[-1], "text": blocks[-1]["text"].rstrip()}


def _mark(blocks: list[JSON], message: JSONObject) -> list[JSON]:
    """Move the `cache_control` of a message to its last block, where Anthropic reads it."""
    if blocks and CACHE_CONTROL in message:
        blocks[-1] = {**blocks[-1], CACHE_CONTROL: message[CACHE_CONTROL]}
    return blocks


def _to_result(message: JSONObject, path: str) -> JSON:
    """Return the result of a call. One without content has none here, either."""
    call_id = message.get("tool_call_id") or message.get("name")
    if not isinstance(call_id, str):
        at = f"{path}.tool_call_id"
        raise InvalidRequestError(f"Missing required parameter: '{at}'.", param=at, code="missing_required_parameter")
    result: JSON = {"type": "tool_result", "tool_use_id": _to_id(call_id)}
    if blocks := to_blocks(message.get("content"), f"{path}.content"):
        result["content"] = blocks
    return _mark([result], message)[0]


def _to_thinking(message: JSONObject) -> Iterator[JSON]:
    """Yield the reasoning that Claude signed, from the parts in which a stream may have brought it.

    Reasoning without a signature, and that of other models, would be refused.
    """
    texts: list[str] = []
    for detail in message.get("reasoning_details") or ():
        if not isinstance(detail, dict) or not str(detail.get("format") or FORMAT_PREFIX).startswith(FORMAT_PREFIX):
            continue
        if detail.get("type") == "reasoning.encrypted" and isinstance(detail.get("data"), str):
            yield {"type": "redacted_thinking", "data": detail["data"]}
        elif detail.get("type") == "reasoning.text":
            texts.append(str(detail.get("text") or ""))
            if isinstance(detail.get("signature"), str) and detail["signature"]:
                yield {"type": "thinking", "thinking": "".join(texts), "signature": detail["signature"]}
                texts = []


def _to_calls(message: JSONObject) -> Iterator[JSON]:
    """Yield the calls of a message, also one in the deprecated form, whose id is its name."""
    for call in message.get("tool_calls") or ():
        body = call.get("function") or call.get("custom") or {}
        yield _to_call(call.get("id") or "", body.get("name") or "", body.get("arguments", body.get("input")))
    if legacy := message.get("function_call"):
        yield _to_call(legacy.get("name") or "", legacy.get("name") or "", legacy.get("arguments"))


def _to_call(id_: str, name: str, arguments: Any) -> JSON:
    return {"type": "tool_use", "id": _to_id(id_), "name": name, "input": _to_input(arguments)}


def _to_input(arguments: Any) -> JSON:
    """Return arguments as an object. A model may have written others, which the conversation must survive."""
    if not arguments:
        return {}
    try:
        value = parse_json(arguments.encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        value = arguments
    return value if isinstance(value, dict) else {"arguments": value}


def _to_id(id_: str) -> str:
    """Return the id of a call without the characters that other models use and Anthropic refuses."""
    return _INVALID_IN_ID.sub("_", id_)
