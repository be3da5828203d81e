"""Checks of a response. It must be the complete expected answer, or an error that is marked as one."""

from __future__ import annotations

import json
from typing import Any, Final

PREFIXES: Final = ("", "Well. ")
"""Texts that may precede the expected answer. The fallback `different` begins with one of its own."""


def is_expected(found: str, text: str) -> bool:
    """Return True if `found` is the expected text after one of `PREFIXES`."""
    return any(found == prefix + text for prefix in PREFIXES)


def check_json(status: int, content: bytes, text: str) -> tuple[str, str]:
    """Return the outcome of a response that is not streamed, and a detail.

    The outcome is `complete` or `error`. Any other outcome is a bug of the server.
    """
    try:
        answer = json.loads(content)
    except ValueError:
        return "not JSON", content[:200].decode("utf-8", "replace")
    if status >= 400:
        return ("error", str(status)) if is_error(answer) else ("malformed error", str(answer)[:200])
    choice = answer["choices"][0]
    is_complete = choice["finish_reason"] == "stop" and is_expected(choice["message"]["content"], text)
    return ("complete", "") if is_complete else ("wrong answer", json.dumps(choice)[:300])


def check_stream(_status: int, content: bytes, text: str) -> tuple[str, str]:
    """Return the outcome of a streamed response, and a detail.

    The outcome is `complete` or `error`. An error must be the last event, without `finish_reason` or
    `[DONE]`. Any other outcome is a bug of the server.
    """
    if not content.endswith((b"\n\n", b"\r\n\r\n")):
        return "truncated event", content[-200:].decode("utf-8", "replace")
    data = [line[6:] for line in content.decode().splitlines() if line.startswith("data: ")]
    done_count = data.count("[DONE]")
    try:
        chunks = [json.loads(line) for line in data if line != "[DONE]"]
    except ValueError:
        return "broken event", content[-200:].decode("utf-8", "replace")
    errors = [chunk for chunk in chunks if "error" in chunk]
    choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
    finish_reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    found = "".join(choice["delta"].get("content") or "" for choice in choices)
    if errors:
        ends_with_error = "error" in chunks[-1] and len(errors) == 1 and is_error(chunks[-1])
        looks_complete = done_count > 0 or bool(finish_reasons)
        is_beginning = any((prefix + text).startswith(found) for prefix in PREFIXES)
        if ends_with_error and not looks_complete and is_beginning:
            return "error", "in the stream"
        return "malformed end", content[-300:].decode()
    if done_count == 1 and data[-1] == "[DONE]" and finish_reasons == ["stop"] and is_expected(found, text):
        return "complete", ""
    return "wrong answer", f"{done_count} [DONE], {finish_reasons}, {found!r}"


def is_error(answer: Any) -> bool:
    """Return True if `answer` is an object in OpenAI's error envelope."""
    error = answer.get("error") if isinstance(answer, dict) else None
    return isinstance(error, dict) and error.keys() >= {"message", "type", "param", "code"}
