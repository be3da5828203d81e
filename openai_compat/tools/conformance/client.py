"""One server under examination: what it is asked, and the answers that several questions look at."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from openai_compat.tools.http_probe import Address, ProbeResponse, send

from .events import EventStream, parse_events

JSON = dict[str, Any]
STORY: Final = "Tell me a story of about sixty words."
TOOL: Final = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city, now.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class CheckFailed(Exception):
    """The question was answered otherwise than OpenAI does; the message is what came."""


class CheckSkipped(Exception):
    """The question makes no sense for this server; the message says why."""


def expect(condition: object, what_came: str) -> None:
    """Raises WrongAnswer unless `condition` holds."""
    if not condition:
        raise CheckFailed(what_came)


@dataclass(frozen=True)
class Target:
    """Who is asked: an address, the models' names, and what goes with every request."""

    address: Address
    model: str
    completion_model: str
    embedding_model: str
    headers: Mapping[str, str]
    origin: str | None = None
    timeout: float = 60.0

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Target:
        """Of the command line.

        Raises:
            ValueError: a header without a colon, a URL that is none.
        """
        headers = {"Content-Type": "application/json"}
        if arguments.api_key:
            headers["Authorization"] = f"Bearer {arguments.api_key}"
        for header in arguments.header:
            name, colon, value = header.partition(":")
            if not colon or not name.strip():
                raise ValueError(f"--header needs NAME:VALUE, not {header!r}")
            headers[name.strip()] = value.strip()
        return cls(
            Address.parse(arguments.url),
            arguments.model,
            arguments.completion_model or arguments.model,
            arguments.embedding_model or arguments.model,
            headers,
            arguments.origin,
            arguments.timeout,
        )


class ConformanceClient:
    """Asks; an answer that several questions look at is asked for once."""

    def __init__(self, subject: Target) -> None:
        self.subject = subject

    def check_reachable(self) -> None:
        """Raises OSError where nobody answers."""
        self.send("GET", "models")

    def send(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}) -> ProbeResponse:
        """The answer to any request."""
        subject = self.subject
        return send(
            subject.address,
            method,
            path,
            headers={**subject.headers, **headers},
            body=body,
            timeout=subject.timeout,
            longest=subject.timeout,
        )

    def post(self, path: str, payload: Any, headers: Mapping[str, str] = {}) -> ProbeResponse:
        return self.send("POST", path, json.dumps(payload).encode(), headers)

    def chat_payload(self, content: Any = "Say hello.", **parameters: Any) -> JSON:
        """A conversation of one message."""
        return {
            "model": self.subject.model,
            "messages": [{"role": "user", "content": content}],
            **parameters,
        }

    def ask_chat(self, content: Any = "Say hello.", **parameters: Any) -> ProbeResponse:
        return self.post("chat/completions", self.chat_payload(content, **parameters))

    def ask_stream(self, content: Any = "Say hello.", **parameters: Any) -> EventStream:
        """The events of a streamed chat.

        Raises:
            WrongAnswer: it is no stream.
        """
        return to_stream(self.ask_chat(content, stream=True, **parameters))

    @cached_property
    def chat(self) -> JSON:
        """A plain chat, not streamed."""
        return to_object(self.chat_answer)

    @cached_property
    def chat_answer(self) -> ProbeResponse:
        return self.ask_chat()

    @cached_property
    def stream_answer(self) -> ProbeResponse:
        return self.stream_long_answer()

    def stream_long_answer(self) -> ProbeResponse:
        """A plain chat, streamed, for a client that could take it compressed."""
        payload = self.chat_payload(STORY, stream=True)
        return self.post("chat/completions", payload, {"Accept-Encoding": "gzip"})

    @cached_property
    def stream(self) -> EventStream:
        return to_stream(self.stream_answer)

    @cached_property
    def stream_with_usage(self) -> EventStream:
        return self.ask_stream(stream_options={"include_usage": True})

    @cached_property
    def tool_answer(self) -> ProbeResponse:
        """A chat that must end with a tool call."""
        return self.ask_chat("What is the weather in Paris?", tools=[TOOL], tool_choice="required")

    @cached_property
    def tool_stream(self) -> EventStream:
        return self.ask_stream("What is the weather in Paris?", tools=[TOOL], tool_choice="required")

    def tool_call_message(self) -> JSON:
        """The message of the chat that must end with a tool call.

        Raises:
            NotAsked: the model has no tools.
        """
        if self.tool_answer.status in {400, 404, 501}:
            raise CheckSkipped(f"the model takes no tools ({self.tool_answer.status})")
        choice = to_object(self.tool_answer)["choices"][0]
        return {**choice["message"], "finish_reason": choice["finish_reason"]}

    @cached_property
    def completion(self) -> JSON:
        return to_object(self.ask_completion("Once upon a time"))

    def ask_completion(self, prompt: Any, **parameters: Any) -> ProbeResponse:
        """The answer of the old text completions.

        Raises:
            NotAsked: the server, or the model, has none.
        """
        payload = {"model": self.subject.completion_model, "prompt": prompt, "max_tokens": 8, **parameters}
        answer = self.post("completions", payload)
        if answer.status in {403, 404, 405, 501}:
            raise CheckSkipped(f"there are no text completions ({answer.status})")
        return answer

    def embed(self, texts: Any, **parameters: Any) -> ProbeResponse:
        """The answer of the embeddings.

        Raises:
            NotAsked: the server, or the model, has none.
        """
        payload = {"model": self.subject.embedding_model, "input": texts, **parameters}
        answer = self.post("embeddings", payload)
        if answer.status in {403, 404, 405, 501}:
            raise CheckSkipped(f"there are no embeddings ({answer.status})")
        return answer

    def vectors(self, texts: Any, **parameters: Any) -> list[Any]:
        """The embeddings of `texts`, in the order of the answer."""
        data = to_object(self.embed(texts, **parameters))["data"]
        return [item["embedding"] for item in data]


def to_object(answer: ProbeResponse) -> JSON:
    """The object of a successful answer.

    Raises:
        WrongAnswer
    """
    expect(answer.status == 200, f"status {answer.status}: {shown(answer.body)}")
    expect(answer.media_type == "application/json", f"content-type {answer.headers.get('content-type')}")
    value = answer.json()
    if not isinstance(value, dict):
        raise CheckFailed(f"no object: {shown(answer.body)}")
    return value


def to_stream(answer: ProbeResponse) -> EventStream:
    """The events of a streamed answer.

    Raises:
        WrongAnswer
        NotAsked: the model went on and on, as small ones do, so that there is no end to look at.
    """
    if answer.is_endless:
        raise CheckSkipped(f"the model was still talking after {answer.arrivals[-1][0]:.0f} s")
    expect(answer.status == 200, f"status {answer.status}: {shown(answer.body)}")
    expect(answer.media_type == "text/event-stream", f"content-type {answer.headers.get('content-type')}")
    expect(not answer.is_cut, "the connection broke within the stream")
    return parse_events(answer.text)


def error_of(answer: ProbeResponse, *statuses: int) -> JSON:
    """The error object of an answer that must have one of `statuses` and OpenAI's envelope.

    Raises:
        WrongAnswer
    """
    expect(answer.status in statuses, f"status {answer.status}: {shown(answer.body)}")
    expect(answer.media_type == "application/json", f"content-type {answer.headers.get('content-type')}")
    value = answer.json()
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict):
        raise CheckFailed(f"no error object: {shown(answer.body)}")
    missing = {"message", "type", "param", "code"} - error.keys()
    expect(not missing, f"the error has no {', '.join(sorted(missing))}: {shown(answer.body)}")
    expect(isinstance(error["message"], str) and error["message"], f"message {error['message']!r}")
    expect(isinstance(error["type"], str), f"type {error['type']!r}")
    expect(error["code"] is None or isinstance(error["code"], str), f"code {error['code']!r}")
    return error


def shown(body: bytes) -> str:
    """The beginning of a body, on one line."""
    text = " ".join(body[:300].decode("utf-8", "replace").split())
    return text if len(text) <= 160 else f"{text[:157]}..."
