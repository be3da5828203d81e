"""`check-adapter`: what a model of kind `external` would be asked, and how its reply is read, step by step."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from openai_compat.backends.external.backend import ExternalBackend, ExternalOptions
from openai_compat.backends.external.body_reader import ReplyReader
from openai_compat.backends.external.declared_reader import DeclaredReader
from openai_compat.backends.external.expressions import Expression
from openai_compat.backends.http.client import UpstreamClient
from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.backends.resources import BackendResources
from openai_compat.config.environment import load_settings
from openai_compat.core.errors import OpenAICompatError, UpstreamError
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest

NO_ANSWER: Final = 1
USAGE_ERROR: Final = 2
MAX_SHOWN_DELTAS: Final = 12
MAX_SHOWN_CHARS: Final = 600
MIN_SECRET_CHARS: Final = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("file", metavar="FILE", help="a models file")
    parser.add_argument("--model", help="the model to check, where the file has several of kind external")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--message", default="Hello!", help="what the user says (Hello!)")
    asked.add_argument("--request", metavar="JSON", help="a whole request as a client would send it, or @FILE with one")
    parser.add_argument("--stream", action="store_true", help="ask for a stream")
    parser.add_argument("--dry-run", action="store_true", help="show the request, and send nothing")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0 for an answer (or a request that was shown), 1 for none, 2 for a file or a request that is wrong."""
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
    forwarder = UpstreamClient(settings)
    backend = _TracingBackend(entry, ExternalOptions(**entry.options), BackendResources(settings, forwarder))
    backend.is_sent = not arguments.dry_run
    try:
        return _check(backend, payload, settings)
    finally:
        forwarder.close()


def _choose(entries: Iterable[ModelConfig], name: str | None) -> ModelConfig:
    external = {entry.name: entry for entry in entries if entry.kind == "external"}
    if name is None and len(external) == 1:
        return next(iter(external.values()))
    if name in external:
        return external[name]
    named = ", ".join(external) or "none"
    raise LookupError(f"--model must name one of the file's models of kind external: {named}")


def _read_payload(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """The request, judged as the server would.

    Raises:
        PayloadError, OSError
    """
    from openai_compat.web.body import parse_json_object, validate
    from openai_compat.web.schemas.chat import CHAT_REQUEST

    given = arguments.request
    if given is None:
        given = json.dumps({"messages": [{"role": "user", "content": arguments.message}]})
    elif given.startswith("@"):
        given = Path(given[1:]).read_text(encoding="utf-8")
    payload = validate(CHAT_REQUEST, parse_json_object(given.encode()))
    return {**payload, "stream": True} if arguments.stream else payload


def _check(backend: _TracingBackend, payload: Mapping[str, Any], settings: Settings) -> int:
    """Asks as the server does: with the row's hooks and profile, and what it promises."""
    from openai_compat.core.tokens import TokenCounter
    from openai_compat.services.chat import ChatService

    say = partial(_say, backend.entry)
    context = CallContext("check-adapter")
    try:
        answer = ChatService(TokenCounter()).start(backend, backend.name, payload, context)
        deltas = [delta for delta in answer.deltas() if isinstance(delta, ChatDelta)]
    except OpenAICompatError as error:
        _show_failure(error, settings, say)
        return NO_ANSWER
    if backend.is_sent:
        say("\nThe answer")
        _show_answer(deltas, context.reply_headers, say)
    return 0


def _show_failure(error: OpenAICompatError, settings: Settings, say: Any) -> None:
    """What the client would get."""
    from openai_compat.web.errors import headers_of, status_of

    say(f"\nNo answer: {error.message}")
    if isinstance(error, UpstreamError) and error.__cause__ is not None:
        say(f"  because of: {error.__cause__}")
    say(f"  the client gets: {status_of(error, settings)} {error.type}, code {error.code or 'null'}")
    for name, value in headers_of(error).items():
        say(f"  {name}: {value}")


def _show_answer(deltas: Iterable[ChatDelta], headers: Mapping[str, str], say: Any) -> None:
    deltas = list(deltas)
    text = "".join(delta.content or "" for delta in deltas)
    reasoning = "".join(delta.reasoning or "" for delta in deltas)
    reasons = [delta.finish_reason for delta in deltas if delta.finish_reason]
    usages = [delta.usage for delta in deltas if delta.usage]
    calls = [call for delta in deltas for call in delta.tool_calls]
    say(f"  content: {json.dumps(text, ensure_ascii=False)}")
    if reasoning:
        say(f"  reasoning_content: {json.dumps(reasoning, ensure_ascii=False)}")
    if calls:
        say(f"  tool_calls: {', '.join(call.name for call in calls if call.name)}")
    say(f"  finish_reason: {reasons[-1] if reasons else 'none'}")
    counts = f"{usages[-1].prompt_tokens} + {usages[-1].completion_tokens} tokens" if usages else "not told"
    say(f"  usage: {counts}")
    for name, value in headers.items():
        say(f"  {name}: {value}")


def _indented(body: bytes) -> str:
    try:
        text = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        text = body.decode("utf-8", "replace")
    return "\n".join(f"  {line}" for line in text.splitlines())


def _cut(text: str) -> str:
    return f"{text[:MAX_SHOWN_CHARS]}{' ...' if len(text) > MAX_SHOWN_CHARS else ''}"


def _say(entry: ModelConfig, text: str) -> None:
    """Prints without secrets, however they are escaped."""
    for secret in entry.secrets():
        if len(secret) >= MIN_SECRET_CHARS:
            for shape in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1]):
                text = text.replace(shape, "***")
    print(text)


class _TracingBackend(ExternalBackend):
    """A backend that says what it asks and what it reads. Where it `is_sent` no call, its answer is empty."""

    is_sent = True

    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta | Heartbeat]:
        self._show_request(request)
        if not self.is_sent:
            return iter([ChatDelta(finish_reason="stop")])
        _say(self.entry, "\nThe reply")
        return super().chat(request, context)

    def _show_request(self, request: ChatRequest) -> None:
        say = partial(_say, self.entry)
        say(f"The request for '{request.model}'")
        is_streamed = request.is_streamed and self.options.stream
        outgoing = self.writer.write(request, is_streamed=is_streamed)
        say(f"  {outgoing.method} {outgoing.url}")
        headers = self.to_headers(outgoing.headers, CallContext("check-adapter"), is_streamed=is_streamed)
        for name, value in headers.items():
            say(f"  {name}: {value}")
        if outgoing.body is not None:
            say(_indented(outgoing.body))
        if unresolved := self.writer.unresolved(request, is_streamed=is_streamed):
            say(f"  nothing is found of, and left out: {', '.join(unresolved)}")

    def read(
        self, reply: UpstreamResponse, context: CallContext, *, simulate_stream: bool
    ) -> Iterator[ChatDelta | Heartbeat]:
        declared = self.adapter.reply.format if self.adapter.reply else "auto"
        say = partial(_say, self.entry)
        say(f"  {reply.status} {reply.headers.get('content-type', 'without a content-type')}, read as {declared}")
        return super().read(reply, context, simulate_stream=False)

    def to_error(self, status: int, body: bytes, headers: Mapping[str, str]) -> UpstreamError:
        explaining = _TracingReader(None, partial(_say, self.entry))
        _say(self.entry, f"  {status} {headers.get('content-type', 'without a content-type')}, an error")
        explaining.show(body.decode("utf-8", "replace"))
        declared = self.adapter.errors.retry_after.header if self.adapter.errors else None
        if declared:
            _say(self.entry, f"    errors.retry_after: header {declared} -> {headers.get(declared, 'nothing')}")
        if self.errors is not None:
            self.errors.trace = explaining.tell
        return super().to_error(status, body, headers)

    def make_reader(self, context: CallContext) -> ReplyReader:
        explaining = _TracingReader(super().make_reader(context), partial(_say, self.entry))
        if self.errors is not None:
            self.errors.trace = explaining.tell
        return explaining


class _TracingReader:
    """A reader that says what it gets and what it finds there. Of a whole reply it says what was not found, too; of a
    stream's pieces what was, and at the end what never was. From a long stream's middle on only the pieces that have
    something besides the text are shown.
    """

    def __init__(self, reader: ReplyReader | None, say: Any) -> None:
        self._reader: Any = reader
        self._say = say
        self._count = 0
        self._is_whole = True
        self._held: str | None = None
        self._found: dict[str, bool] = {}
        if isinstance(reader, DeclaredReader):
            reader.trace = self.tell

    @property
    def has_answer(self) -> bool:
        return bool(self._reader.has_answer)

    def read_value(self, value: Any) -> Iterator[ChatDelta]:
        self._show_piece(json.dumps(value, ensure_ascii=False))
        return iter(self._reader.read_value(value))

    def read_event(self, name: str, value: Any) -> Iterator[ChatDelta]:
        self._show_piece(_named(name, json.dumps(value, ensure_ascii=False)))
        return iter(self._reader.read_event(name, value))

    def read_text_event(self, name: str, data: str) -> Iterator[ChatDelta]:
        self._show_piece(_named(name, data))
        return iter(self._reader.read_text_event(name, data))

    def read_complete(self, value: Any) -> Iterator[ChatDelta]:
        self.show(json.dumps(value, ensure_ascii=False))
        return iter(self._reader.read_complete(value))

    def read_text(self, text: str) -> Iterator[ChatDelta]:
        self._show_piece(text)
        return iter(self._reader.read_text(text))

    def read_end(self, *, is_complete: bool) -> Iterator[ChatDelta]:
        if self._count > MAX_SHOWN_DELTAS:
            self._say(f"  ... {self._count} pieces in all")
        never = [what for what, is_found in self._found.items() if not is_found and not what.startswith("errors.")]
        if never and not self._is_whole:
            self._say(f"  in none of the pieces: {', '.join(never)}")
        return iter(self._reader.read_end(is_complete=is_complete))

    def show(self, text: str) -> None:
        """What the reader gets."""
        self._count += 1
        self._held = None if self._count <= MAX_SHOWN_DELTAS else text
        if self._held is None:
            self._say(f"  {_cut(text)}")

    def _show_piece(self, text: str) -> None:
        self._is_whole = False
        self.show(text)

    def tell(self, what: str, expression: Expression, found: Any) -> None:
        """What an expression found in it."""
        is_found = found not in (None, [], False)
        self._found[what] = self._found.get(what, False) or is_found
        if not (is_found or self._is_whole):
            return
        if self._held is not None:
            if what in {"delta", "text"}:
                return
            self._say(f"  {_cut(self._held)}")
            self._held = ""
        told = "nothing" if found is None else _cut(json.dumps(found, ensure_ascii=False))
        self._say(f"    {what}: {expression.source} -> {told}")


def _named(name: str, data: str) -> str:
    return f"event {name}: {data}" if name else data
