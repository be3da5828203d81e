"""Content blocks of a user, of a tool result and of the system as content parts of chat messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from openai_compat.core.types import JSON
from openai_compat.services.request_fields import invalid_value, object_at, text_at, unsupported

PDF: Final = "application/pdf"
SOURCES: Final = ("base64", "url")
DOCUMENT_SOURCES: Final = ("base64", "text", "content")
BLOCKS: Final = ("text", "image", "document", "search_result", "tool_reference")
"""Types of blocks that have a form in chat."""


def blocks_at(content: Any, path: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield the blocks of a content with their paths. A text is one block.

    Raises:
        InvalidRequestError: a block is no object.
    """
    if isinstance(content, str):
        yield {"type": "text", "text": content}, path
        return
    for index, block in enumerate(content if isinstance(content, list) else ()):
        at = f"{path}[{index}]"
        yield object_at(block, at), at


def to_parts(block: Mapping[str, Any], path: str) -> list[JSON]:
    """Return the content parts of one block.

    Raises:
        InvalidRequestError: the block is malformed, or has no form in chat.
    """
    kind = text_at(block, "type", path)
    if kind == "text":
        return [to_text_part(text_at(block, "text", path))]
    if kind == "image":
        return [_to_image(block, path)]
    if kind == "document":
        return _to_document(block, path)
    if kind == "search_result":
        return [to_text_part(_search_result_text(block))]
    if kind == "tool_reference":
        return [to_text_part(f"The tool {text_at(block, 'tool_name', path)} is available.")]
    raise invalid_value(kind, f"{path}.type", BLOCKS)


def to_text_part(text: str) -> JSON:
    """Return a text as a content part."""
    return {"type": "text", "text": text}


def join_parts(parts: Sequence[JSON]) -> str | list[JSON]:
    """Return parts as the content of a message. Texts alone become one text, which every back end takes."""
    if any(part["type"] != "text" for part in parts):
        return list(parts)
    return "\n\n".join(part["text"] for part in parts)


def _to_image(block: Mapping[str, Any], path: str) -> JSON:
    at = f"{path}.source"
    source = object_at(block.get("source"), at)
    kind = text_at(source, "type", at)
    if kind == "base64":
        url = f"data:{text_at(source, 'media_type', at)};base64,{text_at(source, 'data', at)}"
    elif kind == "url":
        url = text_at(source, "url", at)
    elif kind == "file":
        raise unsupported(f"{at}.file_id", "is not supported with this model: send the image as 'base64' or 'url'")
    else:
        raise invalid_value(kind, f"{at}.type", SOURCES)
    return {"type": "image_url", "image_url": {"url": url}}


def _to_document(block: Mapping[str, Any], path: str) -> list[JSON]:
    """Return a PDF as a file, and any other document as its texts and images, after its title and context."""
    at = f"{path}.source"
    source = object_at(block.get("source"), at)
    kind = text_at(source, "type", at)
    head = [to_text_part(block[key]) for key in ("title", "context") if isinstance(block.get(key), str) and block[key]]
    if kind == "base64":
        return [_to_file(block, source, at)]
    if kind == "text":
        return [*head, to_text_part(text_at(source, "data", at))]
    if kind == "content":
        content = blocks_at(source.get("content"), f"{at}.content")
        return [*head, *(part for inner, inner_at in content for part in to_parts(inner, inner_at))]
    if kind in ("url", "file"):
        raise unsupported(f"{at}.{kind}", "is not supported with this model: send the document as 'base64' or 'text'")
    raise invalid_value(kind, f"{at}.type", DOCUMENT_SOURCES)


def _to_file(block: Mapping[str, Any], source: Mapping[str, Any], path: str) -> JSON:
    media_type = source.get("media_type") or PDF
    if media_type != PDF:
        raise invalid_value(str(media_type), f"{path}.media_type", (PDF,))
    title = block.get("title")
    name = title if isinstance(title, str) and title else "document.pdf"
    data = f"data:{PDF};base64,{text_at(source, 'data', path)}"
    return {"type": "file", "file": {"filename": name, "file_data": data}}


def _search_result_text(block: Mapping[str, Any]) -> str:
    texts = [block.get("title"), block.get("source")]
    content = block.get("content")
    texts += [part.get("text") for part in (content if isinstance(content, list) else ()) if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str) and text)
