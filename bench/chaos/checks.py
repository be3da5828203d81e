"""What an answer is: whole, an honest error, or neither."""

from __future__ import annotations

import json
from typing import Any, Final

TEXTS_OF_OTHERS: Final = ("", "Well. ")
"""What may stand before the answer's text: one of the fallbacks begins with a word of its own."""


def is_right(found: str, text: str) -> bool:
    return any(found == before + text for before in TEXTS_OF_OTHERS)


def judge_whole(status: int, content: bytes, text: str) -> tuple[str, str]:
    try:
        answer = json.loads(content)
    except ValueError:
        return "not JSON", content[:200].decode("utf-8", "replace")
    if status >= 400:
        return ("error", str(status)) if is_error(answer) else ("error in another shape", str(answer)[:200])
    choice = answer["choices"][0]
    is_whole = choice["finish_reason"] == "stop" and is_right(choice["message"]["content"], text)
    return ("whole", "") if is_whole else ("not the answer", json.dumps(choice)[:300])


def judge_stream(_status: int, content: bytes, text: str) -> tuple[str, str]:
    if not content.endswith((b"\n\n", b"\r\n\r\n")):
        return "ends in an event", content[-200:].decode("utf-8", "replace")
    data = [line[6:] for line in content.decode().splitlines() if line.startswith("data: ")]
    ends = data.count("[DONE]")
    try:
        chunks = [json.loads(line) for line in data if line != "[DONE]"]
    except ValueError:
        return "a broken event", content[-200:].decode("utf-8", "replace")
    errors = [chunk for chunk in chunks if "error" in chunk]
    choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
    finishes = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    found = "".join(choice["delta"].get("content") or "" for choice in choices)
    if errors:
        is_honest = ends == 0 and not finishes and "error" in chunks[-1] and len(errors) == 1 and is_error(chunks[-1])
        is_part = any((before + text).startswith(found) for before in TEXTS_OF_OTHERS)
        return ("error", "within") if is_honest and is_part else ("a false end", content[-300:].decode())
    if ends == 1 and data[-1] == "[DONE]" and finishes == ["stop"] and is_right(found, text):
        return "whole", ""
    return "not the answer", f"{ends} ends, {finishes}, {found!r}"


def is_error(answer: Any) -> bool:
    error = answer.get("error") if isinstance(answer, dict) else None
    return isinstance(error, dict) and error.keys() >= {"message", "type", "param", "code"}
