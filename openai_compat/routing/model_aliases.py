"""Patterns of model names that stand for a model, such as `claude-*`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

WILDCARD: Final = "*"


@dataclass(frozen=True, slots=True)
class AliasPattern:
    """A pattern, in which each `*` stands for any text, and the model of the names that it matches."""

    pattern: str
    model: str

    def matches(self, name: str) -> bool:
        """Return True if the pattern matches the whole name, in a time that is linear in the length of the name."""
        head, *inner, tail = self.pattern.split(WILDCARD)
        position, end = len(head), len(name) - len(tail)
        if position > end or not (name.startswith(head) and name.endswith(tail)):
            return False
        for text in inner:
            found = name.find(text, position, end)
            if found < 0:
                return False
            position = found + len(text)
        return True


def patterns_of(aliases: Mapping[str, str]) -> tuple[AliasPattern, ...]:
    """Return the aliases with a `*`, the longest first, because it is the most specific one."""
    patterns = [AliasPattern(name, model) for name, model in aliases.items() if WILDCARD in name]
    return tuple(sorted(patterns, key=lambda alias: len(alias.pattern), reverse=True))


def exact_aliases(aliases: Mapping[str, str]) -> dict[str, str]:
    """Return the aliases without a `*`."""
    return {name: model for name, model in aliases.items() if WILDCARD not in name}
