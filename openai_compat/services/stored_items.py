"""Items of responses and conversations, in the form in which they are stored and returned."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from openai_compat.core.errors import InvalidRequestError, ObjectNotFoundError
from openai_compat.core.types import JSON
from openai_compat.storage.pages import Entry
from openai_compat.storage.records import is_valid_id

from .openai_objects import new_id, to_json

FindItems = Callable[[Collection[str]], Mapping[str, str]]
"""Return the bodies of the caller's stored items by id, without those that do not exist."""

_PREFIXES: Final = {
    "message": "msg_",
    "function_call": "fc_",
    "function_call_output": "fco_",
    "custom_tool_call": "ctc_",
    "custom_tool_call_output": "ctco_",
    "reasoning": "rs_",
    "file_search_call": "fs_",
    "web_search_call": "ws_",
    "computer_call": "cu_",
    "image_generation_call": "ig_",
    "code_interpreter_call": "ci_",
}
_HAS_STATUS: Final = frozenset(
    {"message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"}
)


def is_reference(item: Mapping[str, Any]) -> bool:
    """Return True for a reference to a stored item, whose type may be absent."""
    return item.get("type") == "item_reference" or (item.get("type") is None and "role" not in item)


def to_entries(items: Sequence[Mapping[str, Any]], find: FindItems, param: str) -> list[Entry]:
    """Return the items of a request for the store, each with an id. References are replaced by what they name.

    Raises:
        ObjectNotFoundError: the caller has no item that a reference names. InvalidRequestError: an id is no text that
            can be stored.
    """
    wanted = [item["id"] for item in items if is_reference(item)]
    found = find(wanted) if wanted else {}
    return [_to_entry(item, found, f"{param}[{index}]") for index, item in enumerate(items)]


def _to_entry(item: Mapping[str, Any], found: Mapping[str, str], param: str) -> Entry:
    if not is_reference(item):
        complete = to_item(item)
        if not is_valid_id(complete["id"]):
            raise InvalidRequestError(f"Invalid '{param}.id'.", param=f"{param}.id", code="invalid_value")
        return Entry(complete["id"], to_json(complete).decode())
    id = item["id"]
    if id not in found:
        raise ObjectNotFoundError(f"Item with id '{id}' not found.", param=param.partition("[")[0])
    return Entry(id, found[id])


def to_item(item: Mapping[str, Any]) -> JSON:
    """Return an item of a request with its id, its type and its content as a list of parts."""
    kind = item.get("type") or "message"
    id = item.get("id") or new_id(_PREFIXES.get(kind, "item_"))
    complete: JSON = {"id": id, "type": kind, **{k: v for k, v in item.items() if k not in ("id", "type")}}
    if kind in _HAS_STATUS:
        complete["status"] = item.get("status") or "completed"
    if kind == "message" and isinstance(item.get("content"), str):
        complete["content"] = [_to_part(item["role"], item["content"])]
    return complete


def _to_part(role: str, text: str) -> JSON:
    if role == "assistant":
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": text}
