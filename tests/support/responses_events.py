"""Reader of Responses streams that checks what the strictest of the official clients require."""

from __future__ import annotations

import json
from typing import Any

Event = dict[str, Any]
ENDS = {"response.completed", "response.incomplete", "response.failed"}


def parse_events(data: bytes) -> list[Event]:
    """Return the events of a stream. Each has an `event:` line with its type and one `data:` line."""
    events = []
    for block in data.decode().split("\n\n"):
        if block and not block.startswith(":"):
            name, line = block.split("\n")
            event = json.loads(line.removeprefix("data: "))
            assert name == f"event: {event['type']}"
            events.append(event)
    return events


def check_events(events: list[Event]) -> Event:
    """Check a complete stream and return its response object.

    Numbers rise by one from 0, the start comes first, every item and part is announced before its deltas and closed
    with the same id, and the last event repeats the items.
    """
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    response: Event = events[-1]["response"]
    assert events[-1]["type"] == f"response.{response['status']}"
    assert not any(event["type"] in ENDS for event in events[:-1])
    assert {event["response"]["id"] for event in events if "response" in event} == {response["id"]}
    added = {event["output_index"]: event["item"] for event in events if event["type"] == "response.output_item.added"}
    done = {event["output_index"]: event["item"] for event in events if event["type"] == "response.output_item.done"}
    assert list(added) == list(range(len(added)))
    assert [item["id"] for _, item in sorted(done.items())] == [item["id"] for item in added.values()]
    assert [done[index] for index in sorted(done)] == response["output"]
    _check_parts(events, added)
    assert response["usage"]["input_tokens_details"].keys() >= {"cached_tokens", "cache_write_tokens"}
    return response


def _check_parts(events: list[Event], added: dict[int, Event]) -> None:
    open_parts: set[tuple[str, int]] = set()
    for event in events:
        type_ = event["type"]
        if "item_id" not in event:
            continue
        assert event["item_id"] == added[event["output_index"]]["id"]
        key = (event["item_id"], event.get("content_index", event.get("summary_index", -1)))
        if type_.endswith("part.added"):
            open_parts.add(key)
        elif type_.endswith("part.done"):
            open_parts.remove(key)
        elif "call" not in type_:
            assert key in open_parts, f"{type_} outside of a part"
    assert not open_parts
