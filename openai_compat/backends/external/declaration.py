"""Parser of adapter declarations, the keys `request`, `reply` and `errors` of a model config.

All problems are collected, each with the path of its key, so that they can be fixed at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast, get_args
from urllib.parse import urlsplit

from openai_compat.core.settings import ModelConfig
from openai_compat.core.types import FinishReason
from openai_compat.core.validators import is_header_name, parse_url

from .expressions import OPENING, Expression, Template, TemplateError

Format = Literal["auto", "json", "text", "sse", "ndjson"]
METHODS: Final = ("POST", "GET", "PUT", "PATCH")
REQUEST_KEYS: Final = ("method", "url", "headers", "query", "body", "form")
REPLY_KEYS: Final = (
    "format", "text", "delta", "cumulative", "reasoning", "finish_reason", "finish_reasons", "done", "usage",
    "tool_calls", "ids",
)  # fmt: skip
ERROR_KEYS: Final = ("when", "message", "code", "rate_limit", "bad_input", "overload", "authentication", "retry_after")
ERROR_CLASSES: Final = ("rate_limit", "bad_input", "overload", "authentication")
USAGE_KEYS: Final = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")
RETRY_KEYS: Final = ("path", "header", "unit")
UNITS: Final = {"s": 1.0, "ms": 0.001}
"""Seconds of each unit."""


@dataclass(frozen=True, slots=True)
class RequestDeclaration:
    """Declared form of the request. A part that is None has its default form."""

    method: str = "POST"
    url: Template | None = None
    headers: Template | None = None
    query: Template | None = None
    body: Template | None = None
    form: Template | None = None

    def used_keys(self) -> set[str]:
        """Return the keys of the request document that the expressions use."""
        return {key for expression in self.expressions() for key in expression.root_keys()}

    def expressions(self) -> Iterator[Expression]:
        for template in (self.url, self.headers, self.query, self.body, self.form):
            yield from template.expressions if template else ()


@dataclass(frozen=True, slots=True)
class ReplyDeclaration:
    """Declared form of the reply. `delta` is the expression for `text` in the events of a stream."""

    format: Format = "auto"
    text: Expression | None = None
    delta: Expression | None = None
    is_cumulative: bool = False
    reasoning: Expression | None = None
    finish_reason: Expression | None = None
    finish_reasons: Mapping[str, FinishReason] = field(default_factory=dict)
    done: Expression | None = None
    usage: Mapping[str, Expression] = field(default_factory=dict)
    tool_calls: Expression | None = None
    ids: Mapping[str, Expression] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Declared source of the retry delay, a header or a path. `factor` converts its unit to seconds."""

    header: str | None = None
    path: Expression | None = None
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class ErrorsDeclaration:
    """Declared form of errors. `classes` maps each class to its statuses (numbers) and codes (strings)."""

    when: Expression | None = None
    message: Expression | None = None
    code: Expression | None = None
    classes: Mapping[str, frozenset[int | str]] = field(default_factory=dict)
    retry_after: RetryAfter = field(default_factory=RetryAfter)


@dataclass(frozen=True, slots=True)
class Adapter:
    """Complete declaration of a model config. A section that is missing is None."""

    request: RequestDeclaration | None = None
    reply: ReplyDeclaration | None = None
    errors: ErrorsDeclaration | None = None


def parse_declaration(entry: ModelConfig, options: Any) -> tuple[Adapter, list[str]]:
    """Return the adapter and its problems, one sentence each."""
    problems: list[str] = []
    adapter = Adapter(
        _RequestParser("request", options.request, problems).parse(entry) if options.request is not None else None,
        _ReplyParser("reply", options.reply, problems).parse() if options.reply is not None else None,
        _ErrorsParser("errors", options.errors, problems).parse() if options.errors is not None else None,
    )
    return adapter, problems


class _Parser:
    """Parser of one section. It adds problems to `problems`, each with the path of its key."""

    def __init__(self, section: str, content: Any, problems: list[str]) -> None:
        self.section = section
        self.problems = problems
        self.content: Mapping[str, Any] = content if isinstance(content, dict) else {}
        if not isinstance(content, dict):
            self.add_problem("", "must be a mapping")

    def add_problem(self, path: str, problem: str) -> None:
        full_path = f"{self.section}.{path}" if path else self.section
        self.problems.append(f"{full_path} {problem}" if problem.startswith("must") else f"{full_path}: {problem}")

    def check_keys(self, known: tuple[str, ...], path: str = "", content: Mapping[str, Any] | None = None) -> None:
        for key in self.content if content is None else content:
            if key not in known:
                self.add_problem(path, f"unknown key {key!r}; known keys are {', '.join(known)}")

    def one_of(self, key: str, known: tuple[str, ...]) -> str:
        value = self.content.get(key, known[0])
        if value not in known:
            self.add_problem(key, f"must be one of {', '.join(known)}")
            return known[0]
        return cast(str, value)

    def boolean(self, key: str) -> bool:
        value = self.content.get(key, False)
        if not isinstance(value, bool):
            self.add_problem(key, "must be true or false")
        return value is True

    def mapping(self, key: str) -> Mapping[str, Any]:
        value = self.content.get(key, {})
        if not isinstance(value, dict):
            self.add_problem(key, "must be a mapping")
            return {}
        return value

    def expression(self, key: str) -> Expression | None:
        return self.parse_expression(key, self.content.get(key))

    def parse_expression(self, path: str, source: Any) -> Expression | None:
        if source is None:
            return None
        if not isinstance(source, str):
            self.add_problem(path, "must be a JMESPath expression")
            return None
        try:
            return Expression(source)
        except ValueError as error:
            self.add_problem(path, str(error))
            return None

    def expressions(self, key: str, known: tuple[str, ...] = ()) -> dict[str, Expression]:
        """Return a mapping of names to expressions."""
        content = self.mapping(key)
        if known:
            self.check_keys(known, key, content)
        parsed = {str(name): self.parse_expression(f"{key}.{name}", source) for name, source in content.items()}
        return {name: expression for name, expression in parsed.items() if expression is not None}


class _RequestParser(_Parser):
    def parse(self, entry: ModelConfig) -> RequestDeclaration:
        self.check_keys(REQUEST_KEYS)
        if "body" in self.content and "form" in self.content:
            self.add_problem("", "has a body and a form; only one of them is allowed")
        method = self.one_of("method", METHODS)
        if method == "GET" and ("body" in self.content or "form" in self.content):
            self.add_problem("method", "GET has no body; use `query`")
        return RequestDeclaration(
            method,
            self._url(entry),
            self._headers(entry),
            self._template("query", entry, must_be_mapping=True),
            self._template("body", entry),
            self._template("form", entry, must_be_mapping=True),
        )

    def _url(self, entry: ModelConfig) -> Template | None:
        url = self.content.get("url")
        if url is None:
            return None
        if not isinstance(url, str):
            self.add_problem("url", "must be a string")
            return None
        full_url = url if not url.startswith("/") else (entry.base_url or "").rstrip("/") + url
        literal = full_url.partition(OPENING)[0]
        try:
            parse_url(entry.expand(literal) or "")
        except ValueError as error:
            self.add_problem("url", str(error))
            return None
        if OPENING in full_url and urlsplit(literal).path == "":
            self.add_problem("url", "must name its host without an expression, so that clients cannot choose the host")
            return None
        return self._compile("url", full_url, entry)

    def _headers(self, entry: ModelConfig) -> Template | None:
        for name in self.mapping("headers"):
            if not is_header_name(str(name)):
                self.add_problem(f"headers.{name}", "not a valid header name")
        return self._template("headers", entry, must_be_mapping=True)

    def _template(self, key: str, entry: ModelConfig, *, must_be_mapping: bool = False) -> Template | None:
        value = self.content.get(key)
        if value is None:
            return None
        if must_be_mapping and not isinstance(value, dict):
            self.add_problem(key, "must be a mapping")
            return None
        return self._compile(key, value, entry)

    def _compile(self, key: str, value: Any, entry: ModelConfig) -> Template | None:
        try:
            return Template(value, lambda text: entry.expand(text) or "")
        except TemplateError as error:
            for problem in error.problems:
                path, colon, rest = problem.partition(": ")
                has_path = colon and isinstance(value, dict | list)
                self.add_problem(f"{key}.{path}" if has_path else key, rest if has_path else problem)
            return None


class _ReplyParser(_Parser):
    def parse(self) -> ReplyDeclaration:
        self.check_keys(REPLY_KEYS)
        format_ = cast(Format, self.one_of("format", get_args(Format)))
        text, delta = self.expression("text"), self.expression("delta")
        if text is None and delta is None and format_ != "text" and not self.content.keys() & {"text", "delta"}:
            self.add_problem("text", "must be the path of the answer's text in JMESPath, such as `data.answer`")
        return ReplyDeclaration(
            format_,
            text,
            delta or text,
            self.boolean("cumulative"),
            self.expression("reasoning"),
            self.expression("finish_reason"),
            self._finish_reasons(),
            self.expression("done"),
            self.expressions("usage", USAGE_KEYS),
            self.expression("tool_calls"),
            self._ids(),
        )

    def _finish_reasons(self) -> dict[str, FinishReason]:
        reasons = self.mapping("finish_reasons")
        for name, reason in reasons.items():
            if reason not in get_args(FinishReason):
                self.add_problem(f"finish_reasons.{name}", f"must be one of {', '.join(get_args(FinishReason))}")
        return {str(name): reason for name, reason in reasons.items()}

    def _ids(self) -> dict[str, Expression]:
        ids = self.expressions("ids")
        for name in ids:
            if not (name.isascii() and name.replace("_", "").replace("-", "").isalnum()):
                self.add_problem(
                    f"ids.{name}", "must have a name of letters and digits, which becomes part of a header name"
                )
        return ids


class _ErrorsParser(_Parser):
    def parse(self) -> ErrorsDeclaration:
        self.check_keys(ERROR_KEYS)
        return ErrorsDeclaration(
            self.expression("when"),
            self.expression("message"),
            self.expression("code"),
            dict(self._classes()),
            self._retry_after(),
        )

    def _classes(self) -> Iterator[tuple[str, frozenset[int | str]]]:
        for name in ERROR_CLASSES:
            values = self.content.get(name, [])
            if not (isinstance(values, list) and all(type(value) in (int, str) for value in values)):
                self.add_problem(name, "must be a list of statuses (numbers) and codes")
                continue
            if any(isinstance(value, str) for value in values) and "code" not in self.content:
                self.add_problem(name, "has codes, but `errors.code` is missing")
            yield name, frozenset(values)

    def _retry_after(self) -> RetryAfter:
        content = self.mapping("retry_after")
        self.check_keys(RETRY_KEYS, "retry_after", content)
        if content and ("path" in content) == ("header" in content):
            self.add_problem("retry_after", "must have either a `path` or a `header`")
        unit = content.get("unit", "s")
        if unit not in UNITS:
            self.add_problem("retry_after.unit", f"must be one of {', '.join(UNITS)}")
        header = content.get("header")
        if header is not None and not isinstance(header, str):
            self.add_problem("retry_after.header", "must be the name of a header")
            header = None
        path = self.parse_expression("retry_after.path", content.get("path"))
        return RetryAfter(header.lower() if header else None, path, UNITS.get(unit, 1.0))
