"""Parts of OpenAI's objects, such as ids, times and usage."""

from __future__ import annotations

import json
import re
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import Any, Final
from uuid import uuid4

from openai_compat.backends.parsing.json_check import LOWEST_LOGPROB
from openai_compat.core.errors import UpstreamInvalidResponseError
from openai_compat.core.tokens import TokenCounter
from openai_compat.core.turns import TimeSlices
from openai_compat.core.types import Usage

from .parameters import Text

_OWN_ID: Final = re.compile(r"[0-9a-f]{32}")
_encode_text: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def to_json(value: Any) -> bytes:
    """Return `value` as JSON. Lone surrogates, which UTF-8 cannot encode, become question marks."""
    return _encode_text(value).encode("utf-8", "replace")


def to_json_in_turns(value: Any, depth: int) -> bytes:
    """Return `value` as JSON, with turns for other calls between its parts `depth` levels below it."""
    return _encode(value, depth, TimeSlices().checked(to_json))


def _encode(value: Any, depth: int, encode: Callable[[Any], bytes]) -> bytes:
    if depth and isinstance(value, dict):
        members = [to_json(str(key)) + b":" + _encode(member, depth - 1, encode) for key, member in value.items()]
        return b"{" + b",".join(members) + b"}"
    if depth and isinstance(value, list):
        return b"[" + b",".join([_encode(item, depth - 1, encode) for item in value]) + b"]"
    return encode(value)


def to_tool_texts(tools: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the definitions of tools as the texts whose tokens are counted."""
    return [to_json(tool.get("function") or tool).decode() for tool in tools]


def to_usage_object(usage: Usage) -> dict[str, Any]:
    """Return the `usage` of chat and text completions, with its detail objects."""
    details = {"cached_tokens": usage.cached_tokens, "audio_tokens": 0}
    if usage.cache_write_tokens:
        details["cache_write_tokens"] = usage.cache_write_tokens
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": details,
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def to_finite(logprob: float | None) -> float | None:
    """Return the log probability, or OpenAI's lowest one for `NaN` and infinity, which are not JSON."""
    return logprob if logprob is None or -inf < logprob < inf else LOWEST_LOGPROB


def count_texts(texts: Sequence[Text], model: str, tokens: TokenCounter) -> int:
    """Return the number of tokens in prompts or inputs. Each token id counts as one."""
    ids = sum(len(text) for text in texts if not isinstance(text, str))
    return ids + tokens.count_all([text for text in texts if isinstance(text, str)], model)


def new_id(prefix: str) -> str:
    """Return `prefix` followed by 32 random characters."""
    return prefix + uuid4().hex


def is_own_id(id: str, prefix: str) -> bool:
    """Return True if `id` may come from `new_id`. Those of OpenAI have another length."""
    return _OWN_ID.fullmatch(id.removeprefix(prefix)) is not None and id.startswith(prefix)


def now() -> int:
    """Return the Unix time in whole seconds, as `created` has it."""
    return int(time.time())


def join_audio(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the audio object of all parts. Each part's data is base64 of its own, which cannot be joined as text."""
    joined: dict[str, Any] = {}
    for part in parts:
        joined.update(part)
    for key in {"data", "transcript"} & joined.keys():
        texts = [part[key] for part in parts if isinstance(part.get(key), str)]
        joined[key] = _join_base64(texts) if key == "data" else "".join(texts)
    return joined


def _join_base64(texts: list[str]) -> str:
    if len(texts) == 1:
        return texts[0]
    try:
        return b64encode(b"".join(map(b64decode, texts))).decode()
    except ValueError as error:
        raise UpstreamInvalidResponseError("The upstream's audio is not base64.") from error
