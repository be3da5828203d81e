"""Content parts of Responses items as content parts of chat messages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from openai_compat.core.types import JSON
from openai_compat.services.request_fields import invalid_value, object_at, text_at, unsupported

TEXT_PARTS: Final = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
PART_TYPES: Final = ("input_text", "input_image", "input_file", "input_audio", "output_text", "refusal")
FILE_KEYS: Final = ("file_data", "file_id", "filename")


def to_content(content: Any, path: str) -> str | list[JSON]:
    """Return the content of a message. A single part of text becomes a text, which every back end takes.

    Raises:
        InvalidRequestError: a part is malformed, or has no form in chat.
    """
    if isinstance(content, str):
        return content
    parts = [to_part(object_at(part, at), at) for at, part in _numbered(content, path)]
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def to_part(part: Mapping[str, Any], path: str) -> JSON:
    """Return one content part.

    Raises:
        InvalidRequestError: as from `to_content`.
    """
    kind = text_at(part, "type", path)
    if kind in TEXT_PARTS:
        return {"type": "text", "text": text_at(part, "text", path)}
    if kind == "input_image":
        return _to_image(part, path)
    if kind == "input_file":
        return _to_file(part, path)
    if kind == "input_audio":
        return {"type": "input_audio", "input_audio": object_at(part.get("input_audio"), f"{path}.input_audio")}
    if kind == "refusal":
        return {"type": "refusal", "refusal": text_at(part, "refusal", path)}
    raise invalid_value(kind, f"{path}.type", PART_TYPES)


def _to_image(part: Mapping[str, Any], path: str) -> JSON:
    if part.get("file_id") is not None and part.get("image_url") is None:
        raise unsupported(f"{path}.file_id", "is not supported with this model: send the image as 'image_url'")
    image: JSON = {"url": text_at(part, "image_url", path)}
    if part.get("detail") is not None:
        image["detail"] = "high" if part["detail"] == "original" else part["detail"]
    return {"type": "image_url", "image_url": image}


def _to_file(part: Mapping[str, Any], path: str) -> JSON:
    if part.get("file_url") is not None:
        raise unsupported(f"{path}.file_url", "is not supported with this model: send the file as 'file_data'")
    return {"type": "file", "file": {key: part[key] for key in FILE_KEYS if part.get(key) is not None}}


def to_assistant_fields(content: Any, path: str) -> JSON:
    """Return `content` and `refusal` of an assistant's message.

    Raises:
        InvalidRequestError: as from `to_content`.
    """
    if isinstance(content, str):
        return {"content": content}
    parts = [to_part(object_at(part, at), at) for at, part in _numbered(content, path)]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    refusals = [part["refusal"] for part in parts if part["type"] == "refusal"]
    fields: JSON = {"content": "".join(texts) if texts or not refusals else None}
    return {**fields, "refusal": "".join(refusals)} if refusals else fields


def split_output(output: Any, path: str) -> tuple[str, list[JSON]]:
    """Return the text of a tool's output, and its images and files, which a chat message of a tool cannot have.

    Raises:
        InvalidRequestError: a part is malformed.
    """
    if isinstance(output, str):
        return output, []
    if not isinstance(output, list):
        return "" if output is None else json.dumps(output, ensure_ascii=False), []
    parts = [to_part(object_at(part, at), at) for at, part in _numbered(output, path)]
    text = "\n".join(part["text"] for part in parts if part["type"] == "text")
    return text, [part for part in parts if part["type"] != "text"]


def has_parts(values: Sequence[Any]) -> bool:
    """Return True if all values are content parts."""
    return all(isinstance(value, dict) and value.get("type") in PART_TYPES for value in values)


def _numbered(parts: Any, path: str) -> Sequence[tuple[str, Any]]:
    """Return the parts with their paths."""
    values = parts if isinstance(parts, list) else []
    return [(f"{path}[{index}]", part) for index, part in enumerate(values)]
