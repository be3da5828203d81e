"""Patterns of model names."""

from __future__ import annotations

import pytest

from openai_compat.routing.model_aliases import AliasPattern, patterns_of


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("claude-*", "claude-haiku-4-5", True),
        ("claude-*", "claude-", True),
        ("claude-*", "my-claude-haiku", False),
        ("*-latest", "claude-latest", True),
        ("*-latest", "claude-latest-1", False),
        ("*", "", True),
        ("claude-*-4-*", "claude-haiku-4-5", True),
        ("claude-*-4-*", "claude-haiku-5-5", False),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a*b*b", "ab", False),
        ("a.*[x]", "a.1[x]", True),
        ("a.*[x]", "ab1x", False),
        ("Claude-*", "claude-x", False),
    ],
)
def test_a_star_stands_for_any_text(pattern: str, name: str, expected: bool) -> None:
    assert AliasPattern(pattern, "m").matches(name) is expected


def test_the_longest_pattern_comes_first() -> None:
    found = patterns_of({"*": "a", "claude-haiku-*": "b", "exact": "c", "claude-*": "d"})
    assert [alias.model for alias in found] == ["b", "d", "a"]
