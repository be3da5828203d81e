"""Conversion of a chat page's messages into OpenAI's.

A page sends OpenAI's own messages (`role` and `content`), or those of the Vercel AI SDK, which consist of `parts`.
Source of the latter: `UIMessage` and `convertToModelMessages` in the npm package `ai`, versions 5 to 7, and `Message`
in version 4, which has `content` beside the `parts` and other names for some of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.types import JSON

_AUDIO_FORMATS: Final[Mapping[str, str]] = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}


TOOL_KEYS: Final = ("tool_calls", "tool_call_id", "function_call")
"""Further keys of OpenAI's messages. Chat pages add others of their own (`id`, `name`), which OpenAI may refuse."""


def to_chat_messages(messages: Sequence[Mapping[str, Any]]) -> list[JSON]:
    """Return OpenAI's messages for a page's. Messages without content for a model are dropped.

    Messages and parts for the page alone (version 4's role `data`, `reasoning`, `step-start`, `source-...`,
    `data-...`), files of an assistant, and the SDK's tool calls without a result are dropped, because models accept
    none of them.

    Raises:
        InvalidRequestError: a file or tool part is incomplete, a file cannot be given to a model, or the user's last
            message is empty.
    """
    converted: list[JSON] = []
    for index, message in enumerate(messages):
        if message["role"] == "data":
            continue
        added = list(_convert(message, f"messages[{index}]"))
        if not added and index == len(messages) - 1 and message["role"] != "assistant":
            raise InvalidRequestError(
                "The last message has no content that a model could read.", param=f"messages[{index}]"
            )
        converted += added
    if not converted:
        raise InvalidRequestError("No message has content that a model could read.", param="messages")
    return converted


def _convert(message: Mapping[str, Any], path: str) -> Iterator[JSON]:
    parts = message.get("parts")
    attachments = message.get("experimental_attachments")
    if not parts and not attachments:
        yield from _convert_plain(message, path)
    elif message["role"] == "assistant":
        yield from _convert_assistant(parts or [], message.get("content"), path)
    else:
        content = _to_content(parts or [], path) or _to_own_content(message.get("content"))
        content += _to_attachments(attachments, path)
        if content:
            yield {"role": message["role"], "content": _joined(content)}


def _convert_plain(message: Mapping[str, Any], path: str) -> Iterator[JSON]:
    """Yield the messages for OpenAI's own message, or for one of version 4 without `parts`."""
    invocations = message.get("toolInvocations")
    if message["role"] == "assistant" and isinstance(invocations, list) and invocations:
        yield from _convert_invocations(invocations, message.get("content"), path)
    elif message.get("content") is not None or message.get("tool_calls") or message.get("function_call"):
        own = {key: message[key] for key in TOOL_KEYS if message.get(key)}
        if message["role"] == "function" and isinstance(message.get("name"), str):
            own["name"] = message["name"]
        yield {"role": message["role"], "content": message.get("content"), **own}


def _convert_invocations(invocations: Sequence[Any], content: Any, path: str) -> Iterator[JSON]:
    """Yield version 4's tool calls step by step, each step followed by its results, and then the text."""
    steps: dict[int, _Step] = {}
    for index, invocation in enumerate(invocations):
        place = f"{path}.toolInvocations[{index}]"
        number = invocation.get("step") if isinstance(invocation, Mapping) else None
        step = steps.setdefault(number if isinstance(number, int) else 0, _Step())
        step.add_call(_version_5_call({"toolInvocation": invocation}), place)
    for number in sorted(steps):
        yield from steps[number].to_messages()
    if content:
        yield {"role": "assistant", "content": content}


def _to_own_content(content: Any) -> list[JSON]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return list(content or [])


def _joined(content: list[JSON]) -> str | list[JSON]:
    """Return a single text if all parts are text. Every model takes that form."""
    if all(part["type"] == "text" for part in content):
        return "".join(part["text"] for part in content)
    return content


def _to_content(parts: Sequence[Mapping[str, Any]], path: str) -> list[JSON]:
    content = []
    for index, part in enumerate(parts):
        if part["type"] == "text" and part["text"]:
            content.append({"type": "text", "text": part["text"]})
        elif part["type"] == "file":
            content.append(_to_file(_version_5_file(part), f"{path}.parts[{index}]"))
    return content


def _to_attachments(attachments: Any, path: str) -> list[JSON]:
    """Return the content parts of version 4's files, `{name, contentType, url}`."""
    content = []
    for index, found in enumerate(attachments if isinstance(attachments, list) else []):
        place = f"{path}.experimental_attachments[{index}]"
        if not isinstance(found, Mapping):
            raise InvalidRequestError(
                f"Invalid type for '{place}': expected an object.", param=place, code="invalid_type"
            )
        file = {"mediaType": found.get("contentType"), "url": found.get("url"), "filename": found.get("name")}
        content.append(_to_file(file, place))
    return content


def _version_5_file(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a file part in version 5's form. Version 4 has `mimeType`, and bare base64 in `data` instead of `url`."""
    if part.get("url") is None and isinstance(part.get("data"), str) and isinstance(part.get("mimeType"), str):
        return {"mediaType": part["mimeType"], "url": f"data:{part['mimeType']};base64,{part['data']}"}
    return part


def _to_file(file: Mapping[str, Any], path: str) -> JSON:
    """Return OpenAI's content part for a file. Images may have any URL, audio and other files a `data:` URL."""
    url = _text_in(file, "url", path)
    media_type = file.get("mediaType") if isinstance(file.get("mediaType"), str) else None
    media_type = media_type or _media_type_of(url)
    if media_type.split("/")[0] == "image":
        return {"type": "image_url", "image_url": {"url": url}}
    if not url.startswith("data:"):
        reason = "Only images can be given by URL. Send other files as a 'data:' URL."
        raise InvalidRequestError(reason, param=f"{path}.url", code="invalid_value")
    if media_type in _AUDIO_FORMATS:
        audio = {"data": url.partition(",")[2], "format": _AUDIO_FORMATS[media_type]}
        return {"type": "input_audio", "input_audio": audio}
    filename = file.get("filename")
    return {"type": "file", "file": {"filename": filename if isinstance(filename, str) else "file", "file_data": url}}


def _media_type_of(url: str) -> str:
    return url[5:].partition(",")[0].partition(";")[0] if url.startswith("data:") else ""


def _convert_assistant(parts: Sequence[Mapping[str, Any]], content: Any, path: str) -> Iterator[JSON]:
    """Yield the text and tool calls of each step, followed by the step's tool results."""
    has_content = False
    for step in _steps(parts, path):
        for message in step.to_messages():
            has_content = True
            yield message
    if not has_content and content:
        yield {"role": "assistant", "content": content}


def _steps(parts: Sequence[Mapping[str, Any]], path: str) -> Iterator[_Step]:
    step = _Step()
    for index, part in enumerate(parts):
        kind = part["type"]
        if kind == "step-start":
            yield step
            step = _Step()
        elif kind == "text":
            step.texts.append(part["text"])
        elif kind == "tool-invocation":
            step.add_call(_version_5_call(part), f"{path}.parts[{index}].toolInvocation")
        elif kind == "dynamic-tool" or kind.startswith("tool-"):
            step.add_call(part, f"{path}.parts[{index}]")
    yield step


def _version_5_call(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return version 4's tool part in version 5's form."""
    found = part.get("toolInvocation")
    if not isinstance(found, Mapping):
        return {"type": "dynamic-tool"}
    state = "output-available" if found.get("state") == "result" else "input-available"
    return {**found, "type": "dynamic-tool", "state": state, "input": found.get("args"), "output": found.get("result")}


class _Step:
    """One turn of the model within an assistant's message, with its text, tool calls and their results."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.calls: list[JSON] = []
        self.results: list[JSON] = []

    def add_call(self, part: Mapping[str, Any], path: str) -> None:
        """Add a tool part that has a result. Models refuse calls without one."""
        identifier = _text_in(part, "toolCallId", path)
        kind: str = part["type"]
        name = _text_in(part, "toolName", path) if kind == "dynamic-tool" else kind.removeprefix("tool-")
        result = _to_result(part)
        if result is not None:
            arguments = json.dumps(_input_of(part), ensure_ascii=False)
            self.calls.append(
                {"id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}
            )
            self.results.append({"role": "tool", "tool_call_id": identifier, "content": result})

    def to_messages(self) -> Iterator[JSON]:
        text = "".join(self.texts)
        if self.calls:
            yield {"role": "assistant", "content": text or None, "tool_calls": self.calls}
            yield from self.results
        elif text:
            yield {"role": "assistant", "content": text}


def _input_of(part: Mapping[str, Any]) -> Any:
    """Return a tool's arguments. Those of a call that the page refused are in `rawInput`."""
    given = part.get("input")
    if given is None and part.get("state") == "output-error":
        given = part.get("rawInput")
    return given or {}


def _to_result(part: Mapping[str, Any]) -> str | None:
    """Return a tool's result as text, or None while there is none."""
    state = part.get("state")
    if state == "output-available":
        return _to_text(part.get("output"))
    if state == "output-error":
        return _to_text(part.get("errorText") or "The tool failed.")
    return "The tool may not be called." if state == "output-denied" else None


def _text_in(found: Mapping[str, Any], name: str, path: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not value:
        place = f"{path}.{name}"
        raise InvalidRequestError(
            f"Missing required parameter: '{place}'.", param=place, code="missing_required_parameter"
        )
    return value


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
