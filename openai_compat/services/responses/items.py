"""Input items of the Responses API as chat messages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.profiles import DROPPED
from openai_compat.core.types import JSON
from openai_compat.services.request_fields import invalid_value, object_at, text_at
from openai_compat.services.tool_names import to_chat_name

from .content import has_parts, split_output, to_assistant_fields, to_content
from .sealing import COMPACTION, Reasoning
from .tools import NO_ARGUMENTS, wrap_input

ROLES: Final = ("user", "assistant", "system", "developer")
INSTRUCTION_ROLES: Final = frozenset({"system", "developer"})
CALLS: Final = frozenset({"function_call", "custom_tool_call"})
OUTPUTS: Final = frozenset({"function_call_output", "custom_tool_call_output"})
CALL_ENDING: Final = "_call"
OUTPUT_ENDING: Final = "_output"
IGNORED: Final = frozenset({"additional_tools", "configuration_update", "compaction_trigger"})
"""Types of items that are no part of the conversation."""
SUMMARY_START: Final = "Summary of the conversation before:"

OpenReasoning = Callable[[Mapping[str, Any]], Reasoning]
"""Returns the content of a reasoning item, empty if it cannot be read."""


def to_input_items(value: Any) -> Sequence[Any]:
    """Return a request's `input` as a list of items. A text is one message of the user."""
    if value is None:
        return ()
    return [{"role": "user", "content": value}] if isinstance(value, str) else list(value)


def type_of(item: Mapping[str, Any]) -> str:
    """Return the item's type, which messages and item references may leave out."""
    kind = item.get("type")
    if kind is not None:
        return str(kind)
    return "message" if "role" in item else "item_reference"


def is_reference(item: Any) -> bool:
    """Return True if an item stands for a stored one."""
    return isinstance(item, dict) and type_of(item) == "item_reference"


@dataclass(slots=True)
class MessageGroup:
    """A message, or messages of the assistant with calls, and the outputs of these calls."""

    messages: list[JSON]
    outputs: list[JSON] = field(default_factory=list)

    def accepts(self, message: Mapping[str, Any]) -> bool:
        """Return True if the message belongs to calls that have no output yet."""
        has_calls = bool(self.messages[0].get("tool_calls"))
        return has_calls and not self.outputs and message["role"] == "assistant"

    def to_messages(self) -> list[JSON]:
        """Return the messages, followed by the outputs.

        Messages of the assistant become one. Those with `reasoning_details` start a new one, because Anthropic requires
        each thinking block before the call that it led to.
        """
        parts: list[list[JSON]] = []
        for message in self.messages:
            if not parts or "reasoning_details" in message:
                parts.append([])
            parts[-1].append(message)
        return [*(_merge(part) for part in parts), *self.outputs]


class MessageBuilder:
    """Builder of the chat messages of one call.

    Calls and the assistant's message before them become one message, as chat models have learned it. The outputs
    follow their calls directly, as most upstreams require. Images and files in the output of tools follow as a message
    of the user. `adaptations` lists the types of items that were left out, for the header `x-openai-compat-adapted`.
    """

    def __init__(self, open_reasoning: OpenReasoning) -> None:
        self.adaptations: dict[str, str] = {}
        self._open_reasoning = open_reasoning
        self._groups: list[MessageGroup] = []
        self._reasoning = ""
        self._details: list[Any] = []
        self._attachments: list[JSON] = []
        self._open_calls: dict[str, MessageGroup] = {}

    def add_all(self, items: Iterable[Any], path: str = "input") -> None:
        """Add items in their order.

        Raises:
            InvalidRequestError: an item is malformed, or an output belongs to no call.
        """
        for index, item in enumerate(items):
            at = f"{path}[{index}]"
            self._add(object_at(item, at), at)

    def build(self, instructions: str | None) -> list[JSON]:
        """Return the messages.

        Instructions and the system and developer messages at the beginning become one system message, because the
        templates of many models allow only one.

        Raises:
            InvalidRequestError: a call has no output.
        """
        self._flush_attachments()
        if self._open_calls:
            call_id = min(self._open_calls)
            raise InvalidRequestError(f"No tool output found for function call {call_id}.", param="input")
        texts = [instructions] if instructions else []
        rest = [message for group in self._groups for message in group.to_messages()]
        while rest and rest[0]["role"] == "system" and isinstance(rest[0]["content"], str):
            texts.append(rest[0]["content"])
            rest = rest[1:]
        return [{"role": "system", "content": "\n\n".join(texts)}, *rest] if texts else rest

    def _add(self, item: Mapping[str, Any], path: str) -> None:
        kind = type_of(item)
        if kind == "message":
            self._add_message(item, path)
        elif kind == "reasoning":
            self._add_reasoning(self._open_reasoning(item))
        elif kind == COMPACTION:
            self._add_compaction(item, path)
        elif kind in CALLS:
            self._add_call(item, path, kind)
        elif kind in OUTPUTS:
            self._add_output(item, path)
        elif kind.endswith(OUTPUT_ENDING):
            self._add_foreign_output(item, path, kind)
        elif kind.endswith(CALL_ENDING) and isinstance(item.get("call_id"), str):
            self._add_foreign_call(item, kind)
        elif kind not in IGNORED:
            self.adaptations[f"input.{kind}"] = DROPPED

    def _add_message(self, item: Mapping[str, Any], path: str) -> None:
        role = text_at(item, "role", path)
        if role not in ROLES:
            raise invalid_value(role, f"{path}.role", ROLES)
        content, at = item.get("content"), f"{path}.content"
        if not isinstance(content, str | list):
            raise InvalidRequestError(
                f"Invalid type for '{at}': expected a string or array of objects.", param=at, code="invalid_type"
            )
        if role == "assistant":
            self._append_assistant({"role": role, **to_assistant_fields(content, at)})
            return
        self._reasoning, self._details = "", []
        if role in INSTRUCTION_ROLES:
            self._append({"role": "system", "content": _join_texts(to_content(content, at))})
        else:
            self._append({"role": role, "content": to_content(content, at)})

    def _add_reasoning(self, reasoning: Reasoning) -> None:
        """Keep reasoning for the message that follows it."""
        self._reasoning += reasoning.text
        self._details += reasoning.details

    def _add_compaction(self, item: Mapping[str, Any], path: str) -> None:
        summary = self._open_reasoning(item).text
        if not summary:
            at = f"{path}.encrypted_content"
            raise InvalidRequestError(
                f"Invalid '{at}': it was not written by this server, or with another key.",
                param=at,
                code="invalid_value",
            )
        self._append({"role": "user", "content": f"{SUMMARY_START}\n\n{summary}"})

    def _append(self, message: JSON) -> None:
        self._flush_attachments()
        if self._groups and self._groups[-1].accepts(message):
            self._groups[-1].messages.append(message)
        else:
            self._groups.append(MessageGroup([message]))

    def _append_assistant(self, message: JSON) -> None:
        """Add an assistant's message, with the reasoning before it."""
        if self._reasoning:
            message["reasoning_content"], self._reasoning = self._reasoning, ""
        if self._details:
            message["reasoning_details"], self._details = self._details, []
        self._append(message)

    def _add_call(self, item: Mapping[str, Any], path: str, kind: str) -> None:
        name = to_chat_name(item.get("namespace"), text_at(item, "name", path))
        is_custom = kind == "custom_tool_call"
        arguments = (
            wrap_input(text_at(item, "input", path)) if is_custom else text_at(item, "arguments", path) or NO_ARGUMENTS
        )
        self._append_call(text_at(item, "call_id", path), name, arguments)

    def _add_foreign_call(self, item: Mapping[str, Any], kind: str) -> None:
        """Add the call of a tool that this server does not offer, such as `shell_call`, as a function's."""
        arguments = json.dumps(_content_of(item), ensure_ascii=False)
        self._append_call(item["call_id"], to_chat_name(None, kind.removesuffix(CALL_ENDING)), arguments)

    def _append_call(self, call_id: str, name: str, arguments: str) -> None:
        last = self._last_message()
        if last is None or self._reasoning or self._details:
            last = {"role": "assistant", "content": None}
            self._append_assistant(last)
        call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        last.setdefault("tool_calls", []).append(call)
        self._open_calls[call_id] = self._groups[-1]

    def _last_message(self) -> JSON | None:
        """Return the assistant's message that a call joins."""
        if not self._groups or self._groups[-1].outputs:
            return None
        last = self._groups[-1].messages[-1]
        return last if last["role"] == "assistant" else None

    def _add_output(self, item: Mapping[str, Any], path: str) -> None:
        call_id = text_at(item, "call_id", path)
        if call_id not in self._open_calls:
            raise InvalidRequestError(
                f"No tool call found for function call output with call_id {call_id}.", param="input"
            )
        self._append_output(call_id, item.get("output"), path)

    def _add_foreign_output(self, item: Mapping[str, Any], path: str, kind: str) -> None:
        """Add the output of a tool that this server does not offer. One without a call is left out.

        An output of `local_shell` may name its call as `id`. An output of `shell` is a list of results, which becomes
        JSON.
        """
        call_id = item.get("call_id") or item.get("id")
        if not isinstance(call_id, str) or call_id not in self._open_calls:
            self.adaptations[f"input.{kind}"] = DROPPED
            return
        output = item["output"] if "output" in item else _content_of(item)
        if isinstance(output, list) and not has_parts(output):
            output = json.dumps(output, ensure_ascii=False)
        self._append_output(call_id, output, path)

    def _append_output(self, call_id: str, output: Any, path: str) -> None:
        text, attachments = split_output(output, f"{path}.output")
        if attachments:
            self._attachments += [{"type": "text", "text": f"Output of the tool call {call_id}:"}, *attachments]
            text = text or "The output follows in the next message of the user."
        group = self._open_calls.pop(call_id)
        group.outputs.append({"role": "tool", "tool_call_id": call_id, "content": text})

    def _flush_attachments(self) -> None:
        """Add the images and files that the outputs of tools contained."""
        if self._attachments:
            self._groups.append(MessageGroup([{"role": "user", "content": self._attachments}]))
            self._attachments = []


def _content_of(item: Mapping[str, Any]) -> JSON:
    """Return the fields that say what a tool does or has done."""
    return {key: value for key, value in item.items() if key not in {"type", "id", "call_id", "status"}}


def _merge(messages: Sequence[JSON]) -> JSON:
    """Return the assistant's messages as one."""
    if len(messages) == 1:
        return messages[0]
    merged = dict(messages[0])
    for key in ("content", "refusal", "reasoning_content"):
        if texts := [message[key] for message in messages if message.get(key)]:
            merged[key] = "".join(texts)
    if calls := [call for message in messages for call in message.get("tool_calls", ())]:
        merged["tool_calls"] = calls
    return merged


def _join_texts(content: str | list[JSON]) -> str | list[JSON]:
    """Return content that consists of texts as one text."""
    if isinstance(content, str) or any(part["type"] != "text" for part in content):
        return content
    return "\n\n".join(part["text"] for part in content)
