"""Models in the form of Anthropic's API, with the pagination of its lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.types import JSON

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 1000
LATEST: Final = 253_402_300_799
"""Last second of the year 9999, the latest that RFC 3339 can express."""


@dataclass(frozen=True, slots=True)
class ModelCursor:
    """Part of the list that a client asks for, at most `limit` models between two ids that are not part of it."""

    limit: int = DEFAULT_LIMIT
    after_id: str | None = None
    before_id: str | None = None


def to_anthropic_model(model: JSON, context_window: int | None = None) -> JSON:
    """Return Anthropic's object for a model in OpenAI's form. A model that already has Anthropic's is unchanged."""
    if model.get("type") == "model" and isinstance(model.get("created_at"), str):
        return model
    name = model.get("display_name")
    return {
        "type": "model",
        "id": model["id"],
        "display_name": name if isinstance(name, str) and name else model["id"],
        "created_at": _to_rfc3339(model.get("created")),
        "lifecycle": "active",
        "max_input_tokens": model.get("context_window", context_window),
    }


def to_page(models: Sequence[JSON], cursor: ModelCursor, windows: Mapping[str, int]) -> JSON:
    """Return the part of a list that `cursor` asks for, with the keys of Anthropic's pages.

    `windows` are the models' context windows, which a list in OpenAI's form does not have.

    Raises:
        InvalidRequestError: the list has no model with the id of the cursor.
    """
    ids = [model["id"] for model in models]
    start = _index(ids, "after_id", cursor.after_id) + 1 if cursor.after_id is not None else 0
    end = _index(ids, "before_id", cursor.before_id) if cursor.before_id is not None else len(ids)
    between = models[start:end]
    is_backward = cursor.before_id is not None and cursor.after_id is None
    found = between[-cursor.limit :] if is_backward else between[: cursor.limit]
    return {
        "data": [to_anthropic_model(model, windows.get(model["id"])) for model in found],
        "has_more": len(found) < len(between),
        "first_id": found[0]["id"] if found else None,
        "last_id": found[-1]["id"] if found else None,
    }


def _index(ids: Sequence[str], name: str, value: str) -> int:
    try:
        return ids.index(value)
    except ValueError:
        raise InvalidRequestError(f"{name}: there is no model '{value}'", param=name) from None


def _to_rfc3339(created: object) -> str:
    """Return a Unix time as text. A model of an unknown age has the beginning of Unix time, as in Anthropic's API."""
    seconds = created if type(created) is int and 0 <= created <= LATEST else 0
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
