"""Changing two fields of a JSON body without touching the rest of its bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from openai_compat.core.errors import InvalidRequestError

_ESCAPED_LETTER = b"\\u006"
"""With it a key can be spelled so that it is not found; every letter of "model" is in that row of Unicode."""

_VALUE = re.compile(rb'"model"\s*:\s*("[^"\\]*")')


def to_upstream_body(body: bytes, payload: Mapping[str, Any], *, model: str, asks_for_usage: bool) -> bytes:
    """The body to send on: `body`, the bytes of `payload`, with `model` named and, for a stream whose usage is to be
    read, `stream_options.include_usage` set. The same object when nothing has to change.

    Where the place of a change cannot be told for sure from the bytes (a second key "model" further in, escapes), the
    payload is written anew: the same JSON, other bytes.
    """
    edits: list[tuple[int, int, bytes]] = []
    is_certain = True
    if payload.get("model") != model:
        is_certain = _name_model(body, payload, model, edits)
    if asks_for_usage:
        is_certain = _ask_for_usage(body, payload, edits) and is_certain
    if not is_certain:
        return _rewritten(payload, model, asks_for_usage)
    return _edited(body, edits) if edits else body


def _name_model(body: bytes, payload: Mapping[str, Any], model: str, edits: list[tuple[int, int, bytes]]) -> bool:
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


def _ask_for_usage(body: bytes, payload: Mapping[str, Any], edits: list[tuple[int, int, bytes]]) -> bool:
    if "stream_options" in payload:
        return False
    end = body.rindex(b"}")
    edits.append((end, end, b',"stream_options":{"include_usage":true}'))
    return True


def _edited(body: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """One copy, however many edits; they come in the order of their places."""
    view, at = memoryview(body), 0
    pieces: list[bytes | memoryview] = []
    for start, end, replacement in edits:
        pieces += [view[at:start], replacement]
        at = end
    return b"".join([*pieces, view[at:]])


def _rewritten(payload: Mapping[str, Any], model: str, asks_for_usage: bool) -> bytes:
    changed = {**payload, "model": model}
    if asks_for_usage:
        changed["stream_options"] = {**(payload.get("stream_options") or {}), "include_usage": True}
    return to_body(changed)


def to_body(payload: Mapping[str, Any]) -> bytes:
    """The payload written anew.

    Raises:
        PayloadError: it is nested too deeply.
    """
    try:
        return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    except RecursionError as error:
        raise InvalidRequestError("The JSON body is nested too deeply.") from error
