"""Logging: one line an event, in text or JSON, each with the id of the request it belongs to."""

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
from typing import Any, Final, TextIO

request_id: ContextVar[str] = ContextVar("request_id", default="-")
"""The id of the request that is being served here; every log line of this thread or greenlet carries it."""

LOGGER = "openai_compat"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""C0 and C1, and what else some programs take for the end of a line."""
_CONTROL_BUT_NEWLINE = re.compile(r"(?!\n)" + _CONTROL.pattern)
_MILLISECONDS: Final = tuple(f".{number:03}Z" for number in range(1000))
"""Looked up for each line: formatting takes longer than all of the search for control characters."""


def configure_logging(level: str, log_format: str) -> None:
    """Sends this package's log to standard error; calling it again replaces what the first call set up."""
    handler = LineHandler(sys.stderr)
    handler.setFormatter(JSONFormatter() if log_format == "json" else TextFormatter())
    logger = logging.getLogger(LOGGER)
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False


class LineHandler(logging.StreamHandler[TextIO]):
    """Each record in one `write`, which no other thread's can come into: no lock, of which logging takes two."""

    def handle(self, record: logging.LogRecord) -> bool:
        if is_wanted := bool(self.filter(record)):
            self.emit(record)
        return is_wanted

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.stream.write(self.format(record) + self.terminator)
            self.stream.flush()
        except Exception:  # noqa: BLE001 - as logging itself does: a log that cannot be written fails no request
            self.handleError(record)


_DEFAULT_RECORD_FIELDS: Final = vars(logging.LogRecord("", 0, __file__, 0, "", None, None))
"""What formatters of others' may ask of a record besides."""


class AccessRecord(logging.LogRecord):
    """The line about a request, made a few times faster than logging makes a record."""

    def __init__(self, name: str, level: int, message: str, fields: Mapping[str, Any]) -> None:
        self.__dict__.update(_DEFAULT_RECORD_FIELDS)
        self.name, self.msg, self.fields = name, message, fields
        self.levelno, self.levelname = level, logging.getLevelName(level)
        self.created = time.time()
        self.msecs = self.created % 1 * 1000
        self.relativeCreated = 0.0


@lru_cache(maxsize=4)
def _second(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _time_of(record: logging.LogRecord) -> str:
    return _second(int(record.created)) + _MILLISECONDS[int(record.msecs)]


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


class TextFormatter(logging.Formatter):
    """`2026-01-10T12:00:00.000Z INFO req_1 message key=value`.

    Control characters are escaped: what a client sends can neither forge a line nor steer the terminal of its reader.
    """

    def format(self, record: logging.LogRecord) -> str:
        said = record.getMessage()
        for name, value in getattr(record, "fields", {}).items():
            said += f" {name}={value}"
        if not said.isprintable():  # quicker than to search each line
            said = _CONTROL.sub(_escape, said)
        line = f"{_time_of(record)} {record.levelname} {request_id.get()} {said}"
        if record.exc_info:
            line += "\n" + _CONTROL_BUT_NEWLINE.sub(_escape, self.formatException(record.exc_info))
        return line


class JSONFormatter(logging.Formatter):
    """The same as one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time_of(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "request_id": request_id.get(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
