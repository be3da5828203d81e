"""Log lines, of which a record becomes exactly one."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import unicodedata
from typing import Any

import pytest

from openai_compat.core import logging as logs


def line_of(message: str, *, exc_info: Any = None, **fields: Any) -> str:
    record = logging.LogRecord("openai_compat", logging.INFO, "x.py", 1, message, None, exc_info)
    record.fields = fields
    logs.request_id.set("req_1")
    return logs.TextFormatter().format(record)


def json_line_of(message: str, *, exc_info: Any = None, **fields: Any) -> str:
    record = logging.LogRecord("openai_compat", logging.INFO, "x.py", 1, message, None, exc_info)
    record.fields = fields
    return logs.JSONFormatter().format(record)


def test_a_text_line_has_the_time_the_request_id_and_the_fields() -> None:
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO req_1 POST /v1/é status=200 ms=7",
        line_of("POST /v1/é", status=200, ms=7),
    )


@pytest.mark.parametrize(
    ("character", "escaped"),
    [
        ("\n", r"\n"),
        ("\r", r"\r"),
        ("\t", r"\t"),
        ("\x1b", r"\x1b"),
        ("\x00", r"\x00"),
        ("\x7f", r"\x7f"),
        ("\x85", r"\x85"),
        ("\x9b", r"\x9b"),
        ("\u2028", r"\u2028"),
    ],
)
def test_control_characters_are_escaped(character: str, escaped: str) -> None:
    assert line_of(f"GET /a{character}b").endswith(f"GET /a{escaped}b")
    assert line_of("GET /", model=f"a{character}b").endswith(f"model=a{escaped}b")


def test_every_control_character_is_escaped_and_no_other_character() -> None:
    text = "".join(map(chr, range(0x3000)))
    line = line_of(text)
    assert not [character for character in line if unicodedata.category(character) in {"Cc", "Zl", "Zp"}]
    assert all(character in line for character in text if unicodedata.category(character) not in {"Cc", "Zl", "Zp"})


def test_a_traceback_keeps_its_newlines_and_no_other_control_character() -> None:
    try:
        raise ValueError("red \x1b[31m \r alert")
    except ValueError:
        line = line_of("it failed", exc_info=sys.exc_info())
    assert line.count("\n") >= 3
    assert line.endswith(r"ValueError: red \x1b[31m \r alert")


def test_fields_become_pairs_in_text_and_keys_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.request_id.set("req_1")
    for log_format in ("text", "json"):
        logs.configure_logging("info", log_format)
        logging.getLogger(f"{logs.LOGGER}.web").info("GET /é", extra={"fields": {"status": 200}})
    text, line = capsys.readouterr().err.splitlines()
    assert text.endswith(" INFO req_1 GET /é status=200")
    entry = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry.pop("time"))
    assert entry == {
        "level": "info",
        "logger": "openai_compat.web",
        "request_id": "req_1",
        "message": "GET /é",
        "status": 200,
    }


@pytest.mark.parametrize("value", ["a status=200", "status=200", 'a" status=200 "', "a model=b"])
def test_a_value_that_could_pass_for_other_fields_is_quoted(value: str) -> None:
    line = line_of("GET /", status=404, model=value)
    assert line.endswith(f"GET / status=404 model={json.dumps(value)}")


def test_the_text_of_an_error_cannot_pass_for_fields() -> None:
    record = logging.LogRecord("openai_compat", logging.INFO, "x.py", 1, "%s: %s", ("Error", "no a status=200"), None)
    logs.request_id.set("req_1")
    assert logs.TextFormatter().format(record).endswith(r"Error: no a status\u003d200")
    for text in ("status=200", "x 'status=200", "(status=200", "a\tstatus=200", '"status=200"'):
        record.args = ("Error", text)
        assert "status=200" not in logs.TextFormatter().format(record)


def test_a_value_of_many_megabytes_leaves_a_short_line_with_its_beginning_and_end() -> None:
    value = "begin" + "m" * 30_000_000 + "end"
    shortened = r"model=\"beginm+ \.\.\. \(\d+ characters more\) \.\.\. m+end\" ms=3$"
    assert re.search(shortened, line_of("", model=value, ms=3))
    assert len(line_of("GET /", model=value)) < 1000
    assert len(json_line_of("GET /", model=value)) < 1000


def test_a_message_and_a_traceback_of_many_megabytes_are_shortened() -> None:
    try:
        raise ValueError("x" * 10_000_000)
    except ValueError:
        for line in (line_of, json_line_of):
            assert len(line("y" * 10_000_000, exc_info=sys.exc_info())) < 100_000


def test_a_json_line_has_no_control_character_and_no_line_separator() -> None:
    text = "".join(map(chr, range(0x3000)))
    line = json_line_of(text, model="a\x85\u2028b")
    assert not [character for character in line if unicodedata.category(character) in {"Cc", "Zl", "Zp"}]
    assert (json.loads(line)["message"], json.loads(line)["model"]) == (text, "a\x85\u2028b")


def test_a_record_that_is_made_quickly_is_like_any_other() -> None:
    before = time.time()
    record = logs.to_record("openai_compat.web", logging.INFO, "GET /v1/models", {"status": 200})
    usual = logging.LogRecord("openai_compat.web", logging.INFO, "", 0, "GET /v1/models", None, None)
    assert before <= record.created <= time.time()
    assert 0 <= record.msecs < 1000
    changing = {"created", "msecs", "relativeCreated", "fields"}
    assert {name: value for name, value in vars(record).items() if name not in changing} == {
        name: value for name, value in vars(usual).items() if name not in changing
    }
    logs.request_id.set("req_1")
    assert logs.TextFormatter().format(record).endswith(" INFO req_1 GET /v1/models status=200")
