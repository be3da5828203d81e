"""Client of the server under test, with requests and assertions that many checks share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from openai_compat.core.types import JSON
from openai_compat.tools.http_probe import BaseURL, ProbeResponse, request_headers, send

from .events import EventStream, parse_events

STORY: Final = "Tell me a story of about sixty words."
TOOL: Final = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city, now.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
MISSING_ENDPOINT: Final = frozenset({403, 404, 405, 501})


class CheckFailed(Exception):
    """The server did not answer as OpenAI does. The message is what it returned."""


class CheckSkipped(Exception):
    """The check does not apply to this server or model. The message is the reason."""


def expect(condition: object, detail: str) -> None:
    """Raise CheckFailed with `detail` unless `condition` is true."""
    if not condition:
        raise CheckFailed(detail)


@dataclass(frozen=True)
class Target:
    """The server under test, the names of its models, and the headers of every request."""

    base_url: BaseURL
    model: str
    completion_model: str
    embedding_model: str
    headers: Mapping[str, str]
    origin: str | None = None
    timeout: float = 60.0

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Target:
        """Build the target from the command line.

        Raises:
            ValueError: a header has no colon, or the URL is invalid.
        """
        return cls(
            BaseURL.parse(arguments.url),
            arguments.model,
            arguments.completion_model or arguments.model,
            arguments.embedding_model or arguments.model,
            request_headers(arguments.api_key, arguments.header),
            arguments.origin,
            arguments.timeout,
        )


class ConformanceClient:
    """HTTP client of the checks. Responses that several checks inspect are requested once."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def check_reachable(self) -> None:
        """Raise OSError if the server cannot be reached."""
        self.send("GET", "models")

    def send(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}) -> ProbeResponse:
        """Send a request with the target's headers and timeout."""
        target = self.target
        return send(
            target.base_url,
            method,
            path,
            headers={**target.headers, **headers},
            body=body,
            timeout=target.timeout,
            total_timeout=target.timeout,
        )

    def post(self, path: str, payload: Any, headers: Mapping[str, str] = {}) -> ProbeResponse:
        return self.send("POST", path, json.dumps(payload).encode(), headers)

    def chat_payload(self, content: Any = "Say hello.", **parameters: Any) -> JSON:
        """Return the body of a chat with one user message."""
        return {
            "model": self.target.model,
            "messages": [{"role": "user", "content": content}],
            **parameters,
        }

    def post_chat(self, content: Any = "Say hello.", **parameters: Any) -> ProbeResponse:
        return self.post("chat/completions", self.chat_payload(content, **parameters))

    def stream_chat(self, content: Any = "Say hello.", **parameters: Any) -> EventStream:
        """Stream a chat and return its events.

        Raises:
            CheckFailed: the response is not an event stream.
        """
        return require_stream(self.post_chat(content, stream=True, **parameters))

    @cached_property
    def chat(self) -> JSON:
        """The object of a simple chat that is not streamed."""
        return require_object(self.chat_response)

    @cached_property
    def chat_response(self) -> ProbeResponse:
        return self.post_chat()

    @cached_property
    def stream_response(self) -> ProbeResponse:
        return self.stream_long_answer()

    def stream_long_answer(self) -> ProbeResponse:
        """Stream a chat of about sixty words as a client that accepts gzip."""
        payload = self.chat_payload(STORY, stream=True)
        return self.post("chat/completions", payload, {"Accept-Encoding": "gzip"})

    @cached_property
    def stream(self) -> EventStream:
        return require_stream(self.stream_response)

    @cached_property
    def stream_with_usage(self) -> EventStream:
        return self.stream_chat(stream_options={"include_usage": True})

    @cached_property
    def tool_response(self) -> ProbeResponse:
        """The response to a chat that requires a tool call."""
        return self.post_chat("What is the weather in Paris?", tools=[TOOL], tool_choice="required")

    @cached_property
    def tool_stream(self) -> EventStream:
        return self.stream_chat("What is the weather in Paris?", tools=[TOOL], tool_choice="required")

    def tool_call_message(self) -> JSON:
        """Return the message of the chat that requires a tool call, with its `finish_reason` as a further key.

        Raises:
            CheckSkipped: the model does not support tools.
        """
        if self.tool_response.status in {400, 404, 501}:
            raise CheckSkipped(f"the model does not support tools ({self.tool_response.status})")
        choice = require_object(self.tool_response)["choices"][0]
        return {**choice["message"], "finish_reason": choice["finish_reason"]}

    @cached_property
    def completion(self) -> JSON:
        return require_object(self.post_completion("Once upon a time"))

    def post_completion(self, prompt: Any, **parameters: Any) -> ProbeResponse:
        """Request a text completion.

        Raises:
            CheckSkipped: the server or the model does not support text completions.
        """
        payload = {"model": self.target.completion_model, "prompt": prompt, "max_tokens": 8, **parameters}
        response = self.post("completions", payload)
        if response.status in MISSING_ENDPOINT:
            raise CheckSkipped(f"text completions are not supported ({response.status})")
        return response

    def post_embeddings(self, texts: Any, **parameters: Any) -> ProbeResponse:
        """Request embeddings.

        Raises:
            CheckSkipped: the server or the model does not support embeddings.
        """
        payload = {"model": self.target.embedding_model, "input": texts, **parameters}
        response = self.post("embeddings", payload)
        if response.status in MISSING_ENDPOINT:
            raise CheckSkipped(f"embeddings are not supported ({response.status})")
        return response

    def vectors(self, texts: Any, **parameters: Any) -> list[Any]:
        """Return the embeddings of `texts` in the order of the response."""
        data = require_object(self.post_embeddings(texts, **parameters))["data"]
        return [item["embedding"] for item in data]


def require_object(response: ProbeResponse) -> JSON:
    """Return the JSON object of a successful response.

    Raises:
        CheckFailed: the response has another status, content type or body.
    """
    expect(response.status == 200, f"status {response.status}: {excerpt(response.body)}")
    expect(response.media_type == "application/json", f"content-type {response.headers.get('content-type')}")
    value = response.json()
    if not isinstance(value, dict):
        raise CheckFailed(f"not an object: {excerpt(response.body)}")
    return value


def require_stream(response: ProbeResponse) -> EventStream:
    """Return the events of a streamed response.

    Raises:
        CheckFailed: the response is not an event stream, or the connection broke.
        CheckSkipped: the stream did not end within the timeout. Small models sometimes generate without end.
    """
    if response.timed_out:
        raise CheckSkipped(f"the model was still generating after {response.chunk_times[-1][0]:.0f} s")
    expect(response.status == 200, f"status {response.status}: {excerpt(response.body)}")
    expect(response.media_type == "text/event-stream", f"content-type {response.headers.get('content-type')}")
    expect(not response.is_truncated, "the connection broke in the stream")
    return parse_events(response.text)


def require_error(response: ProbeResponse, *statuses: int) -> JSON:
    """Return the error object of a response with one of `statuses` and OpenAI's error envelope.

    Raises:
        CheckFailed: the response has another status or structure.
    """
    expect(response.status in statuses, f"status {response.status}: {excerpt(response.body)}")
    expect(response.media_type == "application/json", f"content-type {response.headers.get('content-type')}")
    value = response.json()
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict):
        raise CheckFailed(f"no error object: {excerpt(response.body)}")
    missing = {"message", "type", "param", "code"} - error.keys()
    expect(not missing, f"the error has no {', '.join(sorted(missing))}: {excerpt(response.body)}")
    expect(isinstance(error["message"], str) and error["message"], f"message {error['message']!r}")
    expect(isinstance(error["type"], str), f"type {error['type']!r}")
    expect(error["code"] is None or isinstance(error["code"], str), f"code {error['code']!r}")
    return error


def excerpt(body: bytes) -> str:
    """Return the beginning of a body on one line."""
    text = " ".join(body[:300].decode("utf-8", "replace").split())
    return text if len(text) <= 160 else f"{text[:157]}..."
