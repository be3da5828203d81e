"""A validated payload's fields as backends take them: what was given a value, and prompts in one shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Text = str | Sequence[int]
"""A text, or the token ids of one."""


def without_nulls(payload: Mapping[str, Any], *left_out: str) -> dict[str, Any]:
    """The parameters of a payload: what was given a value, but for the fields that have a place of their own."""
    return {name: value for name, value in payload.items() if value is not None and name not in left_out}


def to_texts(value: Any) -> Sequence[Text]:
    """A prompt or input in any of its four shapes, as a list with one entry a text."""
    if isinstance(value, str) or (value and isinstance(value[0], int)):
        return [value]
    return list(value)
