"""`check-adapter`: what a model of kind `external` would be asked, and how its reply is read, step by step."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import quote

from .backends.adapter_reply import DeclaredReader
from .backends.base import BackendResources, ForwardedReply
from .backends.expressions import Expression
from .backends.external import ExternalBackend, ExternalOptions
from .backends.external_reply import Reader
from .backends.upstream import Forwarder
from .configuration import load_settings
from .domain import CallContext, ChatDelta, ChatRequest
from .errors import ConfigurationError, OpenAICompatError
from .settings import ModelEntry
from .streams import Silence

NO_ANSWER: Final = 1
USAGE_ERROR: Final = 2
MOST_PIECES: Final = 12
LONGEST_SHOWN: Final = 600
SHORTEST_SECRET: Final = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("file", metavar="FILE", help="a models file")
    parser.add_argument("--model", help="the model to check, where the file has several of kind external")
    parser.add_argument("--message", default="Hello!", help="what the user says (Hello!)")
    parser.add_argument("--stream", action="store_true", help="ask for a stream")
    parser.add_argument("--dry-run", action="store_true", help="show the request, and send nothing")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0 for an answer (or a request that was shown), 1 for none, 2 for a file that is wrong."""
    try:
        settings = load_settings(MODEL_REGISTRY_PATH=arguments.file)
        entry = _choose(settings.entries.values(), arguments.model)
    except (ConfigurationError, LookupError) as error:
        print(error.message if isinstance(error, ConfigurationError) else error.args[0], file=sys.stderr)
        return USAGE_ERROR
    forwarder = Forwarder(settings)
    backend = _Explained(entry, ExternalOptions(**entry.options), BackendResources(settings, forwarder))
    request = ChatRequest(entry.name, [{"role": "user", "content": arguments.message}], {}, arguments.stream)
    try:
        return _check(backend, request, is_sent=not arguments.dry_run)
    finally:
        forwarder.close()


def _choose(entries: Iterable[ModelEntry], name: str | None) -> ModelEntry:
    external = {entry.name: entry for entry in entries if entry.kind == "external"}
    if name is None and len(external) == 1:
        return next(iter(external.values()))
    if name in external:
        return external[name]
    named = ", ".join(external) or "none"
    raise LookupError(f"--model must name one of the file's models of kind external: {named}")


def _check(backend: _Explained, request: ChatRequest, *, is_sent: bool) -> int:
    say = partial(_say, backend.entry)
    say(f"The request for '{request.model}'")
    try:
        _show_request(backend, request, say)
        if not is_sent:
            return 0
        say("\nThe reply")
        deltas = [delta for delta in backend.chat(request, CallContext("check-adapter")) if _is_delta(delta)]
    except OpenAICompatError as error:
        say(f"\nNo answer: {error.message}")
        return NO_ANSWER
    say("\nThe answer")
    _show_answer(deltas, say)
    return 0


def _is_delta(delta: ChatDelta | Silence) -> bool:
    return isinstance(delta, ChatDelta)


def _show_request(backend: _Explained, request: ChatRequest, say: Any) -> None:
    is_streamed = request.is_streamed and backend.options.stream
    outgoing = backend.writer.write(request, is_streamed=is_streamed)
    say(f"  {outgoing.method} {outgoing.url}")
    headers = backend.to_headers(outgoing.headers, CallContext("check-adapter"), is_streamed=is_streamed)
    for name, value in headers.items():
        say(f"  {name}: {value}")
    if outgoing.body is not None:
        say(_indented(outgoing.body))


def _show_answer(deltas: Iterable[Any], say: Any) -> None:
    deltas = list(deltas)
    text = "".join(delta.content or "" for delta in deltas)
    reasons = [delta.finish_reason for delta in deltas if delta.finish_reason]
    usages = [delta.usage for delta in deltas if delta.usage]
    calls = [call for delta in deltas for call in delta.tool_calls]
    say(f"  content: {json.dumps(text, ensure_ascii=False)}")
    if calls:
        say(f"  tool_calls: {', '.join(call.name for call in calls if call.name)}")
    say(f"  finish_reason: {reasons[-1] if reasons else 'none'}")
    counts = f"{usages[-1].prompt_tokens} + {usages[-1].completion_tokens} tokens" if usages else "not told"
    say(f"  usage: {counts}")


def _indented(body: bytes) -> str:
    try:
        text = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        text = body.decode("utf-8", "replace")
    return "\n".join(f"  {line}" for line in text.splitlines())


def _say(entry: ModelEntry, text: str) -> None:
    """Prints without secrets: neither those that the row names nor what its headers hold, however they are escaped."""
    secrets = {entry.api_key, *entry.variables.values(), *_values_of(entry.headers)}
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        if len(secret) >= SHORTEST_SECRET:
            for shape in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1]):
                text = text.replace(shape, "***")
    print(text)


def _values_of(headers: Mapping[str, str]) -> set[str]:
    """The values, and what follows a scheme in them (`Bearer ...`)."""
    return {value for whole in headers.values() for value in (whole, whole.rpartition(" ")[2])}


class _Explained(ExternalBackend):
    """A backend that says what it reads."""

    def read(self, reply: ForwardedReply, context: CallContext, *, splits_whole: bool) -> Iterator[ChatDelta | Silence]:
        declared = self.adapter.reply.format if self.adapter.reply else "auto"
        say = partial(_say, self.entry)
        say(f"  {reply.status} {reply.headers.get('content-type', 'without a content-type')}, read as {declared}")
        return super().read(reply, context, splits_whole=False)

    def make_reader(self, context: CallContext) -> Reader:
        return _Explaining(super().make_reader(context), partial(_say, self.entry))


class _Explaining:
    """A reader that says what it gets and what it finds there; of a long stream the beginning, and its length."""

    def __init__(self, reader: Reader, say: Any) -> None:
        self._reader = reader
        self._say = say
        self._count = 0
        if isinstance(reader, DeclaredReader):
            reader.watch = self._tell

    @property
    def has_answer(self) -> bool:
        return self._reader.has_answer

    def read_value(self, value: Any) -> Iterator[ChatDelta]:
        self._show(json.dumps(value, ensure_ascii=False))
        return self._reader.read_value(value)

    def read_whole(self, value: Any) -> Iterator[ChatDelta]:
        self._show(json.dumps(value, ensure_ascii=False))
        return self._reader.read_whole(value)

    def read_text(self, text: str) -> Iterator[ChatDelta]:
        self._show(text)
        return self._reader.read_text(text)

    def read_end(self, *, is_proper: bool) -> Iterator[ChatDelta]:
        if self._count > MOST_PIECES:
            self._say(f"  ... {self._count} pieces in all")
        return self._reader.read_end(is_proper=is_proper)

    def _show(self, piece: str) -> None:
        self._count += 1
        if self._count <= MOST_PIECES:
            self._say(f"  {piece[:LONGEST_SHOWN]}{' ...' if len(piece) > LONGEST_SHOWN else ''}")

    def _tell(self, what: str, expression: Expression, found: Any) -> None:
        if self._count <= MOST_PIECES:
            told = "nothing" if found is None else json.dumps(found, ensure_ascii=False)[:LONGEST_SHOWN]
            self._say(f"    {what}: {expression.source} -> {told}")
