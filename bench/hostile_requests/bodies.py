"""Request bodies that cost a server much, and large ones that honest clients send."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
EMBEDDINGS: Final = "/v1/embeddings"
ASK: Final = "/ask"
MAX_BYTES: Final = 32 * 1024 * 1024
"""The default of `MAX_REQUEST_BYTES`."""


@dataclass(frozen=True, slots=True)
class Body:
    """A request body. An honest one must be answered with 200, and none may get a 5xx."""

    name: str
    path: str
    content: bytes
    is_honest: bool = False
    encoding: str = ""


def all_bodies(model: str) -> Iterator[Body]:
    """Yield the bodies, one at a time, as each may have 32 MiB."""
    yield from _many_values(model)
    yield from _long_values(model)
    yield from _compressed(model)
    yield from _small_requests(model)
    yield from _honest(model)


def _many_values(model: str) -> Iterator[Body]:
    """Yield bodies of many small values, as many as fit and nearly as many as the limit allows."""
    head = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "x"}}], "x": ['.encode()
    for name, item, allowed in (
        ("{}", b"{},", 249_000), ("[]", b"[],", 249_000), ("objects of one key", b'{"a":1},', 166_000),
        ("lists in objects", b'{"a":[]},', 124_000), ("integers", b"1,", 499_000), ("decimals", b"1.5,", 499_000),
        ("strings", b'"",', 499_000), ("long integers", b"9" * 4299 + b",", 7_000),
    ):  # fmt: skip
        for count in {(MAX_BYTES - len(head) - 10) // len(item), allowed}:
            if count * len(item) < MAX_BYTES - len(head):
                yield Body(f"{count:,} {name}", CHAT, head + item * count + b"1]}")
    keys = b",".join(b'"k%d":1' % number for number in range(248_000))
    yield Body("248,000 keys", CHAT, head + b"1], " + keys + b"}")
    message = {"role": "user", "content": "x"}
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "type": "function", "function": {}}]}
    yield Body("120,000 messages", CHAT, _dump(model=model, messages=[message] * 120_000))
    yield Body("55,000 /ask messages", ASK, _dump(model=model, messages=[{**message, "id": ""}] * 55_000))
    yield Body("38,000 tool calls", CHAT, _dump(model=model, messages=[call] * 38_000))
    parts = [{"type": "text", "text": "x"}] * 120_000
    yield Body("120,000 content parts", CHAT, _dump(model=model, messages=[{"role": "user", "content": parts}]))
    nested = [{"role": "user", "content": parts[:200]}] * 600
    yield Body("600 x 200 content parts", CHAT, _dump(model=model, messages=nested))
    yield Body("490,000 prompts", COMPLETIONS, _dump(model=model, prompt=["x"] * 490_000))
    yield Body("490,000 inputs", EMBEDDINGS, _dump(model=model, input=["x"] * 490_000))
    yield Body("240,000 lists of tokens", EMBEDDINGS, _dump(model=model, input=[[1]] * 240_000))
    yield Body("100,000 deep", CHAT, head + b"[" * 100_000 + b"]" * 100_000 + b"]}")


def _long_values(model: str) -> Iterator[Body]:
    """Yield bodies with one long text or number."""
    for name, text in (
        ("quotes", '\\"'), ("escapes", "\\u00e9"), ("surrogate pairs", "\\ud83d\\ude00"), ("Latin", "é"),
        ("Chinese", "模"), ("emoji", "😀"), ("brackets", "[{"), ("spaces", " "),
    ):  # fmt: skip
        yield Body(f"32 MB of {name}", CHAT, _text_body(model, text, MAX_BYTES - 100))
    half = _text_body(model, "a", MAX_BYTES - 200)[:-4] + b'\\ud800"}]}'
    yield Body("half a surrogate pair after 32 MB", CHAT, half)
    yield Body("a decimal of 32 MB", CHAT, b'{"n": 0.' + b"9" * (MAX_BYTES - 100) + b"}")
    yield Body("a model's name of 32 MB", CHAT, _text_body("m" * (MAX_BYTES - 200), "x", 1))
    yield Body("a role of 32 MB", CHAT, _dump(model=model, messages=[{"role": "r" * (MAX_BYTES - 200), "content": ""}]))


def _compressed(model: str) -> Iterator[Body]:
    """Yield bodies that are small or many until they are decompressed."""
    text = _text_body(model, "a", MAX_BYTES - 100)
    yield Body("gzip of 32 MB", CHAT, gzip.compress(text, 9), encoding="gzip")
    yield Body("deflate of 64 MB", CHAT, zlib.compress(text + text), encoding="deflate")
    member = gzip.compress(b"")
    yield Body("1.5 million gzip members", CHAT, member * (MAX_BYTES // len(member)), encoding="gzip")


def _small_requests(model: str) -> Iterator[Body]:
    """Yield requests of a few kilobytes that ask for much."""
    hi, long = [_user("hi")], [_user("a " * 3000)]
    yield Body("2,048 x 3,072 dimensions", EMBEDDINGS, _dump(model=model, input=["x"] * 2048, dimensions=3072))
    largest = {"model": model, "input": ["x"] * 2048, "dimensions": 1536}
    yield Body("2,048 x 1,536 dimensions", EMBEDDINGS, _dump(**largest))
    yield Body("2,048 x 1,536 dimensions in base64", EMBEDDINGS, _dump(**largest, encoding_format="base64"))
    yield Body("20 top_logprobs", CHAT, _dump(model=model, messages=long, logprobs=True, top_logprobs=20))
    yield Body("128 choices", CHAT, _dump(model=model, messages=long, n=128))
    yield Body("128 choices in a stream", CHAT, _dump(model=model, messages=long, n=128, stream=True))
    yield Body("echo with logprobs", COMPLETIONS, _dump(model=model, prompt="a " * 8000, echo=True, logprobs=5))
    long_suffix = _dump(model=model, prompt=["x"] * 1000, suffix="a " * 60, max_tokens=1)
    yield Body("1,000 prompts with a suffix", COMPLETIONS, long_suffix)
    for name, schema in _schemas():
        format_ = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        yield Body(name, CHAT, _dump(model=model, messages=hi, response_format=format_))


def _schemas() -> Iterator[tuple[str, Any]]:
    """Yield JSON schemas that are expensive to satisfy."""
    patterns = {
        "nested": "(" * 300 + "a" + ")" * 300, "counted": "((((a{1000}){1000}){1000}){1000})",
        "long": "[a-z]|" * 160, "repeated": "(a?){0,9}" * 110, "classes": "[^ -~]" * 160,
        "negated": "[^a-zA-Z0-9_ .!\\x21-\\x7e]" * 40, "nested repeats": "(" * 90 + "a" + "*)" * 90,
    }  # fmt: skip
    for name, pattern in patterns.items():
        text = {"type": "string", "pattern": pattern}
        items = [{**text, "title": str(number)} for number in range(400)]
        yield f"a pattern: {name}", {**text, "maxLength": 10_000}
        yield f"400 patterns: {name}", {"type": "array", "prefixItems": items}
    yield (
        "an enum of 400,000",
        {"type": "array", "minItems": 2000, "uniqueItems": True, "items": {"enum": [*range(400_000)]}},
    )
    yield "2,000 equal items", {"type": "array", "minItems": 1990, "uniqueItems": True, "items": {"type": "string"}}
    properties = {str(number): {"type": "string"} for number in range(50_000)}
    yield "50,000 properties", {"allOf": [{"allOf": [{"type": "object", "properties": properties}]}] * 20}
    many = {"type": "object", "properties": properties, "allOf": [{"properties": {"a": {}}}] * 1000}
    yield "50,000 properties merged 1,000 times", many
    yield "120,000 alternatives", {"anyOf": [False] * 120_000}
    fan_out = {
        f"a{level}": {"type": "array", "minItems": 10, "items": {"$ref": f"#/$defs/a{level + 1}"}}
        for level in range(15)
    }
    yield "a schema that fans out", {"$ref": "#/$defs/a0", "$defs": {**fan_out, "a15": {"type": "string"}}}


def _honest(model: str) -> Iterator[Body]:
    """Yield large bodies that must be accepted."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0K" * 3_750_000}}
    yield Body("an image of 30 MB", CHAT, _dump(model=model, messages=[_user([image])]), is_honest=True)
    small = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0K" * 180_000}}
    yield Body("20 images", CHAT, _dump(model=model, messages=[_user([small] * 20)]), is_honest=True)
    texts = ["some words of a document " * 5] * 2048
    yield Body("2,048 inputs", EMBEDDINGS, _dump(model=model, input=texts), is_honest=True)
    tokens = [[1234] * 146] * 2048
    yield Body("2,048 inputs of 146 tokens", EMBEDDINGS, _dump(model=model, input=tokens), is_honest=True)
    yield Body("a conversation of agents", CHAT, _dump(model=model, messages=_agents()), is_honest=True)


def _agents() -> list[dict[str, Any]]:
    """Return a conversation of 4,001 messages with calls of tools and their results in JSON."""
    result = json.dumps({"rows": [{"id": number, "name": "a name"} for number in range(5)]})
    function = {"name": "query", "arguments": json.dumps({"sql": "select * from t", "limit": 5})}
    turn: list[dict[str, Any]] = [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "c", "content": result},
    ]
    return [*(turn * 2000), {"role": "user", "content": "go on"}]


def _user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _text_body(model: str, text: str, limit: int) -> bytes:
    """Return a chat of one message that repeats `text`, which is JSON already, up to `limit` bytes."""
    head, tail = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "'.encode(), b'"}]}'
    encoded = text.encode()
    return head + encoded * max(1, (limit - len(head)) // len(encoded)) + tail


def _dump(**payload: Any) -> bytes:
    return json.dumps(payload, separators=(",", ":")).encode()
