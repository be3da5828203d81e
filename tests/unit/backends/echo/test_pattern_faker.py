"""Tests of strings generated for a pattern, and of the refusal of unsupported or hostile patterns."""

from __future__ import annotations

import re

import pytest

from openai_compat.backends.echo.pattern_faker import UnsupportedPatternError, generate_match


@pytest.mark.parametrize(
    "pattern",
    [
        "abc",
        "^abc$",
        r"^\d{3}-\d{4}$",
        r"^[A-Z]{3}-\d{4}$",
        r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$",
        r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
        r"^(red|green|blue)$",
        r"^(foo|bar)+baz?$",
        r"^(?:[a-f0-9]{8})-(?P<tail>x{2,})$",
        r"[\w.-]+@[\w-]+\.\w{2,4}",
        r"^[^a-z]\S\s.$",
        r"^#([A-Fa-f0-9]{6}|[A-Fa-f0-9]{3})$",
        r"^v?\d+(\.\d+){2}$",
        r"^https?:\/\/\w+\.com\u0041$",
        r"a\.b\\c\[d\]\n",
        r"^[\]a]$",
        r"^[^\d\W]\D\W[^x]$",
        r"^[+-]?\d+$",
        "^[\u4e00-\u9fff]{2}$",
        "(^abc|^def$)",
        "x*?y",
        "^(a+)+$",
    ],
)
@pytest.mark.parametrize("min_length", [0, 1])
def test_the_string_matches_its_pattern(pattern: str, min_length: int) -> None:
    text = generate_match(pattern, min_length, 100)
    assert re.search(pattern, text)
    assert min_length <= len(text) <= 100


def test_a_named_group_of_javascript_is_read() -> None:
    assert generate_match(r"^(?<year>\d{4})$", 0, 100) == "0000"
    assert generate_match(r"\(?<a", 0, 100) == "<a"


def test_an_empty_pattern_only_gives_an_empty_string() -> None:
    assert generate_match("", 0, 100) == ""
    with pytest.raises(UnsupportedPatternError):
        generate_match("", 1, 100)


@pytest.mark.parametrize(
    ("pattern", "min_length", "max_length", "text"),
    [
        ("^[a-z]+$", 200, 300, "a" * 200),
        ("^a*$", 3, 3, "aaa"),
        ("^(ab){2,}$", 7, 8, "abababab"),
        ("^(a+b)+$", 12, 12, "aaab" * 3),
        ("^a{9000}b*$", 10_000, 10_000, "a" * 9000 + "b" * 1000),
    ],
)
def test_a_pattern_grows_to_the_requested_length(pattern: str, min_length: int, max_length: int, text: str) -> None:
    assert generate_match(pattern, min_length, max_length) == text


@pytest.mark.parametrize(
    ("pattern", "min_length", "max_length"), [("^a{3}$", 4, 10), ("^a{3}$", 0, 2), ("^(ab)*$", 3, 3)]
)
def test_a_length_that_the_pattern_does_not_have_is_refused(pattern: str, min_length: int, max_length: int) -> None:
    with pytest.raises(UnsupportedPatternError, match="no string of"):
        generate_match(pattern, min_length, max_length)


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        ")",
        "[",
        "[]",
        "*",
        r"\bx",
        r"(a)\1",
        "(?=a)a",
        "(?!b)a",
        "(?<=a)b",
        "(?i)[^a]",
        "(?i:[^a])",
        "(?>a)b",
        "a++b",
        "a$b",
        "a^b",
        r"\p{L}",
        r"[^\S\s]",
        "x" * 1_001,
    ],
)
def test_an_invalid_or_unsupported_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(UnsupportedPatternError):
        generate_match(pattern, 0, 10_000)


@pytest.mark.parametrize(
    "pattern",
    [
        "a{2000000}",
        "(a{1000}){1000}",
        "((a{900}){900}){900}",
        "(a{4294967294}){4294967294}",
        "a{9999}" * 100,
        "(a{9999}){9999999999999}",
        "(" * 500 + ")" * 500,
    ],
)
def test_a_hostile_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(UnsupportedPatternError):
        generate_match(pattern, 0, 10_000)


def test_an_omitted_part_is_not_generated() -> None:
    # The omitted part alone would have 4 * 10**9 characters.
    assert generate_match("^b(a{4294967294}){0}$", 0, 10_000) == "b"
    assert generate_match("^(b|(a{4294967294}){4294967294})$", 0, 10_000) == "b"
