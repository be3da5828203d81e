"""What precedes a request's input, such as stored items that it refers to and sealed reasoning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from openai_compat.core.errors import InvalidRequestError

from .fields import text_at
from .items import is_reference, to_input_items
from .store import References, ResponseStore


def resolve(
    payload: Mapping[str, Any], store: ResponseStore, owner: str | None
) -> tuple[Sequence[Mapping[str, Any]], list[Any]]:
    """Return the stored items before the input, and the input with the items that its references stand for.

    Raises:
        InvalidRequestError, ObjectNotFoundError: an id is unknown, or the request names two contexts.
    """
    items = to_input_items(payload.get("input"))
    references = _references_of(payload, items)
    if not references:
        return (), list(items)
    context = store.load_context(references, owner)
    return context.items, [context.referenced[item["id"]] if is_reference(item) else item for item in items]


def _references_of(payload: Mapping[str, Any], items: Sequence[Any]) -> References:
    conversation = payload.get("conversation")
    identifier = text_at(conversation, "id", "conversation") if isinstance(conversation, dict) else conversation
    previous = payload.get("previous_response_id")
    if previous is not None and identifier is not None:
        raise InvalidRequestError(
            "The parameters 'previous_response_id' and 'conversation' cannot be used together.",
            param="previous_response_id",
            code="mutually_exclusive_parameters",
        )
    named = tuple(text_at(item, "id", f"input[{at}]") for at, item in enumerate(items) if is_reference(item))
    return References(previous, identifier, named)
