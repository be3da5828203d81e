"""Patches of a JSON body that leave its other bytes unchanged."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from openai_compat.core.errors import InvalidRequestError

_ESCAPED_LETTER = b"\\u006"
"""The escape of a letter. With it, the key "model" can be spelled so that a byte search misses it."""

_VALUE = re.compile(rb'"model"\s*:\s*("[^"\\]*")')


def to_upstream_body(body: bytes, payload: Mapping[str, Any], *, model: str, asks_for_usage: bool) -> bytes:
    """Return `body`, the bytes of `payload`, with the upstream's `model` and, on request, `include_usage` set.

    It is the same object when nothing has to change. If the bytes do not show for sure where to change them (a nested
    key "model", escapes), the payload is encoded again: the same JSON in other bytes.
    """
    edits: list[tuple[int, int, bytes]] = []
    is_certain = True
    if payload.get("model") != model:
        is_certain = _set_model(body, payload, model, edits)
    if asks_for_usage:
        is_certain = _request_usage(body, payload, edits) and is_certain
    if not is_certain:
        return _encode_again(payload, model, asks_for_usage)
    return _apply(body, edits) if edits else body


def _set_model(body: bytes, payload: Mapping[str, Any], model: str, edits: list[tuple[int, int, bytes]]) -> bool:
    value = json.dumps(model).encode()
    if "model" not in payload:
        start = body.index(b"{") + 1
        edits.append((start, start, b'"model":' + value + b","))
        return True
    start = body.find(b'"model"')
    is_only_one = start >= 0 and body.find(b'"model"', start + 1) < 0 and _ESCAPED_LETTER not in body
    found = _VALUE.match(body, start) if is_only_one else None
    if found is None:
        return False
    edits.append((*found.span(1), value))
    return True


def _request_usage(body: bytes, payload: Mapping[str, Any], edits: list[tuple[int, int, bytes]]) -> bool:
    if "stream_options" in payload:
        return False
    end = body.rindex(b"}")
    edits.append((end, end, b',"stream_options":{"include_usage":true}'))
    return True


def _apply(body: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Apply the edits, which are in order, with a single copy."""
    view, at = memoryview(body), 0
    parts: list[bytes | memoryview] = []
    for start, end, replacement in edits:
        parts += [view[at:start], replacement]
        at = end
    return b"".join([*parts, view[at:]])


def _encode_again(payload: Mapping[str, Any], model: str, asks_for_usage: bool) -> bytes:
    changed = {**payload, "model": model}
    if asks_for_usage:
        changed["stream_options"] = {**(payload.get("stream_options") or {}), "include_usage": True}
    return to_body(changed)


def to_body(payload: Mapping[str, Any]) -> bytes:
    """Return the payload as JSON.

    Raises:
        InvalidRequestError: it is nested too deeply.
    """
    try:
        return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    except RecursionError as error:
        raise InvalidRequestError("The JSON body is nested too deeply.") from error
