"""Command `check-adapter`, which prints the request to an external chat API and how the response is parsed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from openai_compat.backends.external.backend import ExternalBackend, ExternalOptions
from openai_compat.backends.external.body_reader import ReplyReader
from openai_compat.backends.external.declared_reader import DeclaredReader
from openai_compat.backends.external.expressions import Expression
from openai_compat.backends.http.client import UpstreamClient
from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.backends.resources import BackendResources
from openai_compat.config.environment import load_settings
from openai_compat.core.errors import OpenAICompatError, UpstreamError
from openai_compat.core.redaction import Redactor
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest

from . import FAILED, USAGE_ERROR

MAX_SHOWN_EVENTS: Final = 12
MAX_SHOWN_CHARS: Final = 600
MIN_SECRET_CHARS: Final = 4
Print = Callable[[str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", metavar="FILE", help="models file")
    parser.add_argument("--model", help="model to check, if the file has several of kind external")
    request = parser.add_mutually_exclusive_group()
    request.add_argument("--message", default="Hello!", help="text of the user's message (default: Hello!)")
    request.add_argument("--request", metavar="JSON", help="complete request as a client sends it, or @FILE with one")
    parser.add_argument("--stream", action="store_true", help="request a stream")
    parser.add_argument("--dry-run", action="store_true", help="print the request without sending it")


def run(arguments: argparse.Namespace) -> int:
    """Check one model. Return 0 for an answer or a dry run, 1 for an error, and 2 for an invalid file or request."""
    try:
        settings = load_settings(MODELS_FILE=arguments.file)
        entry = _choose(settings.entries.values(), arguments.model)
        payload = _read_payload(arguments)
    except OSError as error:
        print(f"--request: {error}", file=sys.stderr)
        return USAGE_ERROR
    except (OpenAICompatError, LookupError) as error:
        print(error.message if isinstance(error, OpenAICompatError) else error.args[0], file=sys.stderr)
        return USAGE_ERROR
    client = UpstreamClient(settings)
    backend = _TracingBackend(entry, ExternalOptions(**entry.options), BackendResources(settings, client))
    backend.is_dry_run = arguments.dry_run
    try:
        return _check(backend, payload, settings)
    finally:
        client.close()


def _choose(entries: Iterable[ModelConfig], name: str | None) -> ModelConfig:
    """Return the model of that name, or the only one.

    Raises:
        LookupError: with a sentence for the user.
    """
    external = {entry.name: entry for entry in entries if entry.kind == "external"}
    if name is None and len(external) == 1:
        return next(iter(external.values()))
    if name in external:
        return external[name]
    names = ", ".join(external) or "none"
    raise LookupError(f"--model must name one of the file's models of kind external: {names}")


def _read_payload(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Return the request, validated as the server does.

    Raises:
        InvalidRequestError: the request is not valid.
        OSError: its file cannot be read.
    """
    from openai_compat.web.body import parse_json_object, validate
    from openai_compat.web.schemas.chat import CHAT_REQUEST

    text = arguments.request
    if text is None:
        text = json.dumps({"messages": [{"role": "user", "content": arguments.message}]})
    elif text.startswith("@"):
        text = Path(text[1:]).read_text(encoding="utf-8-sig")
    payload = validate(CHAT_REQUEST, parse_json_object(text.encode()))
    return {**payload, "stream": True} if arguments.stream else payload


def _check(backend: _TracingBackend, payload: Mapping[str, Any], settings: Settings) -> int:
    """Call the backend through the chat service, as the server does, with the model's hooks and profile."""
    from openai_compat.core.tokens import TokenCounter
    from openai_compat.services.chat import ChatService

    context = CallContext("check-adapter")
    try:
        answer = ChatService(TokenCounter()).start(backend, backend.name, payload, context)
        deltas = [delta for delta in answer.deltas() if isinstance(delta, ChatDelta)]
    except OpenAICompatError as error:
        _print_error(error, settings, backend.print)
        return FAILED
    if not backend.is_dry_run:
        backend.print("\nAnswer")
        _print_answer(deltas, context.reply_headers, backend.print)
    return 0


def _print_error(error: OpenAICompatError, settings: Settings, print_: Print) -> None:
    from openai_compat.web.errors import headers_of, status_of

    print_(f"\nNo answer: {error.message}")
    if isinstance(error, UpstreamError) and error.__cause__ is not None:
        print_(f"  cause: {error.__cause__}")
    print_(f"  the client gets: {status_of(error, settings)} {error.type}, code {error.code or 'null'}")
    for name, value in headers_of(error).items():
        print_(f"  {name}: {value}")


def _print_answer(deltas: list[ChatDelta], headers: Mapping[str, str], print_: Print) -> None:
    text = "".join(delta.content or "" for delta in deltas)
    reasoning = "".join(delta.reasoning or "" for delta in deltas)
    reasons = [delta.finish_reason for delta in deltas if delta.finish_reason]
    usages = [delta.usage for delta in deltas if delta.usage]
    calls = [call for delta in deltas for call in delta.tool_calls]
    print_(f"  content: {json.dumps(text, ensure_ascii=False)}")
    if reasoning:
        print_(f"  reasoning_content: {json.dumps(reasoning, ensure_ascii=False)}")
    if calls:
        print_(f"  tool_calls: {', '.join(call.name for call in calls if call.name)}")
    print_(f"  finish_reason: {reasons[-1] if reasons else 'none'}")
    usage = f"{usages[-1].prompt_tokens} + {usages[-1].completion_tokens} tokens" if usages else "not reported"
    print_(f"  usage: {usage}")
    for name, value in headers.items():
        print_(f"  {name}: {value}")


def _indented(body: bytes) -> str:
    try:
        text = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        text = body.decode("utf-8", "replace")
    return "\n".join(f"  {line}" for line in text.splitlines())


def _shortened(text: str) -> str:
    return f"{text[:MAX_SHOWN_CHARS]}{' ...' if len(text) > MAX_SHOWN_CHARS else ''}"


def _print_redacted(entry: ModelConfig, text: str) -> None:
    """Print `text` with each secret of the model replaced, also where it is escaped for a URL or for JSON."""
    print(Redactor(entry.secrets(), MIN_SECRET_CHARS).mask(text))


class _TracingBackend(ExternalBackend):
    """Backend that prints its requests and how responses are parsed. In a dry run it sends nothing."""

    is_dry_run = False

    def __init__(self, entry: ModelConfig, options: ExternalOptions, resources: BackendResources) -> None:
        super().__init__(entry, options, resources)
        self.print: Print = partial(_print_redacted, entry)

    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta | Heartbeat]:
        self._print_request(request)
        if self.is_dry_run:
            return iter([ChatDelta(finish_reason="stop")])
        self.print("\nResponse")
        return super().chat(request, context)

    def _print_request(self, request: ChatRequest) -> None:
        self.print(f"Request for '{request.model}'")
        is_streamed = request.is_streamed and self.options.stream
        outgoing = self.writer.write(request, is_streamed=is_streamed)
        self.print(f"  {outgoing.method} {outgoing.url}")
        headers = self.to_headers(outgoing.headers, CallContext("check-adapter"), is_streamed=is_streamed)
        for name, value in headers.items():
            self.print(f"  {name}: {value}")
        if outgoing.body is not None:
            self.print(_indented(outgoing.body))
        if unresolved := self.writer.unresolved(request, is_streamed=is_streamed):
            self.print(f"  without a value, so left out: {', '.join(unresolved)}")

    def read(
        self, reply: UpstreamResponse, context: CallContext, *, simulate_stream: bool
    ) -> Iterator[ChatDelta | Heartbeat]:
        declared = self.adapter.reply.format if self.adapter.reply else "auto"
        content_type = reply.headers.get("content-type", "without a Content-Type")
        self.print(f"  {reply.status} {content_type}, parsed as {declared}")
        return super().read(reply, context, simulate_stream=False)

    def to_error(self, status: int, body: bytes, headers: Mapping[str, str]) -> UpstreamError:
        reader = _TracingReader(None, self.print)
        self.print(f"  {status} {headers.get('content-type', 'without a Content-Type')}, an error")
        reader.print_input(body.decode("utf-8", "replace"))
        declared = self.adapter.errors.retry_after.header if self.adapter.errors else None
        if declared:
            self.print(f"    errors.retry_after: header {declared} -> {headers.get(declared, 'nothing')}")
        if self.errors is not None:
            self.errors.trace = reader.trace
        return super().to_error(status, body, headers)

    def make_reader(self, context: CallContext) -> ReplyReader:
        reader = _TracingReader(super().make_reader(context), self.print)
        if self.errors is not None:
            self.errors.trace = reader.trace
        return reader


class _TracingReader:
    """Reader that prints its input and the value of each expression.

    For a complete response it also prints expressions without a value. For a stream it prints at the end those that
    never had one. After `MAX_SHOWN_EVENTS` events it prints only events with values besides text.
    """

    def __init__(self, reader: ReplyReader | None, print_: Print) -> None:
        self._reader: Any = reader
        self._print = print_
        self._event_count = 0
        self._is_stream = False
        self._unprinted: str | None = None
        self._has_value: dict[str, bool] = {}
        if isinstance(reader, DeclaredReader):
            reader.trace = self.trace

    @property
    def has_answer(self) -> bool:
        return bool(self._reader.has_answer)

    def read_value(self, value: Any) -> Iterator[ChatDelta]:
        self._print_event(json.dumps(value, ensure_ascii=False))
        return iter(self._reader.read_value(value))

    def read_event(self, name: str, value: Any) -> Iterator[ChatDelta]:
        self._print_event(_with_name(name, json.dumps(value, ensure_ascii=False)))
        return iter(self._reader.read_event(name, value))

    def read_text_event(self, name: str, data: str) -> Iterator[ChatDelta]:
        self._print_event(_with_name(name, data))
        return iter(self._reader.read_text_event(name, data))

    def read_complete(self, value: Any) -> Iterator[ChatDelta]:
        self.print_input(json.dumps(value, ensure_ascii=False))
        return iter(self._reader.read_complete(value))

    def read_text(self, text: str) -> Iterator[ChatDelta]:
        self._print_event(text)
        return iter(self._reader.read_text(text))

    def read_end(self, *, is_complete: bool) -> Iterator[ChatDelta]:
        if self._event_count > MAX_SHOWN_EVENTS:
            self._print(f"  ... {self._event_count} events in total")
        missing = [
            name for name, has_value in self._has_value.items() if not has_value and not name.startswith("errors.")
        ]
        if missing and self._is_stream:
            self._print(f"  without a value in any event: {', '.join(missing)}")
        return iter(self._reader.read_end(is_complete=is_complete))

    def print_input(self, text: str) -> None:
        """Print what the reader gets, or keep it for `trace` after `MAX_SHOWN_EVENTS` events."""
        self._event_count += 1
        self._unprinted = None if self._event_count <= MAX_SHOWN_EVENTS else text
        if self._unprinted is None:
            self._print(f"  {_shortened(text)}")

    def trace(self, name: str, expression: Expression, value: Any) -> None:
        """Print the value that an expression has in the input."""
        has_value = value not in (None, [], False)
        self._has_value[name] = self._has_value.get(name, False) or has_value
        if self._is_stream and not has_value:
            return
        if self._unprinted is not None:
            if name in {"delta", "text"}:
                return
            self._print(f"  {_shortened(self._unprinted)}")
            self._unprinted = None
        shown = "nothing" if value is None else _shortened(json.dumps(value, ensure_ascii=False))
        self._print(f"    {name}: {expression.source} -> {shown}")

    def _print_event(self, text: str) -> None:
        self._is_stream = True
        self.print_input(text)


def _with_name(name: str, data: str) -> str:
    return f"event {name}: {data}" if name else data
