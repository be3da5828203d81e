"""Log lines in text or JSON, each with the id of its request."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from .shortening import shorten

request_id: ContextVar[str] = ContextVar("request_id", default="-")
"""Id of the current request, which every log line of this thread or greenlet contains."""

trace_id: ContextVar[str] = ContextVar("trace_id", default="")
"""Id of the current request's trace, which every log line contains if traces are on."""

LOGGER = "openai_compat"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""The control characters C0 and C1, and the two Unicode line separators."""
_AMBIGUOUS = re.compile(r'[\s="]')
"""Characters that a reader of `key=value` pairs may take for the end of a value."""
_PAIR = re.compile(r"(?<![^\s(\"'])([\w.-]+)=")
"""The beginning of what looks like a field."""
_CONTROL_BUT_NEWLINE = re.compile(r"(?!\n)" + _CONTROL.pattern)
MAX_MESSAGE_CHARS: Final = 25_000
"""Length of a message, which may be a request body (`LOG_REQUEST_BODIES`), and of a traceback."""
MAX_VALUE_CHARS: Final = 500
"""Length of a field's value in text and JSON."""
_MILLISECONDS: Final = tuple(f".{number:03}Z" for number in range(1000))
"""Precomputed, as formatting them takes longer than the search for control characters."""


def configure_logging(level: str, log_format: str) -> None:
    """Send this package's log to standard error.

    A second call replaces the configuration of the first one.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter() if log_format == "json" else TextFormatter())
    logger = logging.getLogger(LOGGER)
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False


def adopt_logger(name: str) -> None:
    """Send the log of a library with this package's."""
    logger = logging.getLogger(name)
    logger.handlers[:] = logging.getLogger(LOGGER).handlers
    logger.propagate = False


def to_record(name: str, level: int, message: str, fields: Mapping[str, Any]) -> logging.LogRecord:
    """Return a record of this process in a third of the time that its constructor takes."""
    now = time.time()
    record = object.__new__(logging.LogRecord)
    record.__dict__ = {
        **_template(name, level), "msg": message, "created": now, "msecs": float(now % 1 * 1000 // 1), "fields": fields
    }  # fmt: skip
    return record


@lru_cache(maxsize=32)
def _template(name: str, level: int) -> dict[str, Any]:
    return vars(logging.LogRecord(name, level, "", 0, "", None, None))


@lru_cache(maxsize=4)
def _format_second(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _format_time(record: logging.LogRecord) -> str:
    return _format_second(int(record.created)) + _MILLISECONDS[int(record.msecs)]


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def _escape_for_json(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _quoted_pairs(fields: Mapping[str, Any]) -> str:
    return "".join([f" {name}={_quote(shorten(str(value), MAX_VALUE_CHARS))}" for name, value in fields.items()])


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if _AMBIGUOUS.search(text) else text


class TextFormatter(logging.Formatter):
    """Formatter of text lines such as `2026-01-10T12:00:00.000Z INFO req_1 message key=value`.

    The keys and values are the mapping `fields` of the record (`extra={"fields": ...}`). Control characters are
    escaped and long values are shortened. In a message with arguments, the `=` of `key=value` is escaped. So a client
    can neither forge a line or a field nor control the reader's terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if len(text) > MAX_MESSAGE_CHARS:
            text = shorten(text, MAX_MESSAGE_CHARS)
        if record.args:  # texts of clients and upstreams, which could imitate fields
            text = _PAIR.sub(r"\1\\u003d", text)
        fields = getattr(record, "fields", {})
        start = len(text)
        for name, value in fields.items():
            text += f" {name}={value}"
        # Only a value with `=` could pass for other pairs.
        if text.count("=", start) != len(fields) or len(text) - start > MAX_VALUE_CHARS:
            text = text[:start] + _quoted_pairs(fields)
        if not text.isprintable():  # faster than the search
            text = _CONTROL.sub(_escape, text)
        line = f"{_format_time(record)} {record.levelname} {request_id.get()} {text}"
        if trace := trace_id.get():
            line += f" trace_id={trace}"
        if record.exc_info:
            traceback = shorten(self.formatException(record.exc_info), MAX_MESSAGE_CHARS)
            line += "\n" + _CONTROL_BUT_NEWLINE.sub(_escape, traceback)
        return line


class JSONFormatter(logging.Formatter):
    """Formatter of lines that are one JSON object each, with the same values."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        line: dict[str, Any] = {
            "time": _format_time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "request_id": request_id.get(),
            **({"trace_id": trace} if (trace := trace_id.get()) else {}),
            "message": shorten(record.getMessage(), MAX_MESSAGE_CHARS),
            **{
                name: shorten(value, MAX_VALUE_CHARS) if type(value) is str else value for name, value in fields.items()
            },
        }
        if record.exc_info:
            line["exception"] = shorten(self.formatException(record.exc_info), MAX_MESSAGE_CHARS)
        text = json.dumps(line, ensure_ascii=False, default=str)
        return text if text.isprintable() else _CONTROL.sub(_escape_for_json, text)
