"""Content parts of chat messages as blocks of Anthropic's API."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.types import JSON, JSONObject

_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w=.+-]+)*?(;base64)?,", re.ASCII)
_PDF: Final = "application/pdf"
CACHE_CONTROL: Final = "cache_control"


def to_blocks(content: Any, path: str) -> list[JSON]:
    """Return the blocks of a message's content, without texts of white space alone, which Anthropic refuses.

    Raises:
        InvalidRequestError: A part has no counterpart, or cannot be read.
    """
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content.strip() else []
    blocks = []
    for index, part in enumerate(content or ()):
        block = _to_block(part, f"{path}[{index}]")
        if block["type"] == "text" and not block["text"].strip():
            continue
        blocks.append(block if CACHE_CONTROL not in part else {**block, CACHE_CONTROL: part[CACHE_CONTROL]})
    return blocks


def _to_block(part: JSONObject, path: str) -> JSON:
    convert = _CONVERTERS.get(str(part.get("type")))
    if convert is None:
        message = f"Invalid value: '{part.get('type')}'. This model takes text, images and files."
        raise InvalidRequestError(message, param=f"{path}.type", code="invalid_value")
    return convert(part, path)


def _to_text(part: JSONObject, _path: str) -> JSON:
    return {"type": "text", "text": part.get("text") or part.get("refusal") or ""}


def _to_image(part: JSONObject, path: str) -> JSON:
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str):
        raise _invalid(f"{path}.image_url.url", "expected the URL of an image")
    if not url.startswith("data:"):
        return {"type": "image", "source": {"type": "url", "url": url}}
    media_type, data = _split_data_url(url, f"{path}.image_url.url")
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def _to_document(part: JSONObject, path: str) -> JSON:
    file = part.get("file")
    data_url = file.get("file_data") if isinstance(file, dict) else None
    if not isinstance(file, dict) or not isinstance(data_url, str):
        raise _invalid(f"{path}.file.file_data", "this model takes files as data URLs, and no file ids")
    media_type, data = _split_data_url(data_url, f"{path}.file.file_data")
    if media_type != _PDF:
        raise _invalid(f"{path}.file.file_data", "this model takes files in PDF, and texts as parts of type 'text'")
    title = {"title": file["filename"]} if file.get("filename") else {}
    return {"type": "document", "source": {"type": "base64", "media_type": media_type, "data": data}, **title}


def _split_data_url(url: str, path: str) -> tuple[str, str]:
    """Return the media type and the base64 text of a data URL."""
    found = _DATA_URL.match(url)
    if found is None or not found[1] or not found[2]:
        raise _invalid(path, "expected a data URL, 'data:TYPE;base64,DATA'")
    return found[1], url[found.end() :]


def _invalid(path: str, problem: str) -> InvalidRequestError:
    return InvalidRequestError(f"Invalid '{path}': {problem}.", param=path, code="invalid_value")


_CONVERTERS: Final[Mapping[str, Callable[[JSONObject, str], JSON]]] = {
    "text": _to_text,
    "refusal": _to_text,
    "image_url": _to_image,
    "file": _to_document,
}
