"""A conversation with tool calls that even a very small model continues with one."""

from __future__ import annotations

import json
from typing import Any

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def tool_history() -> list[Any]:
    """Return a conversation whose pattern so small a model continues with a call."""
    history: list[Any] = []
    for number, city in enumerate(("Rome", "Oslo", "Cairo")):
        call = {"name": "get_weather", "arguments": json.dumps({"city": city})}
        history += [
            {"role": "user", "content": f"How is the weather in {city}?"},
            {"role": "assistant", "tool_calls": [{"id": f"call_{number}", "type": "function", "function": call}]},
            {"role": "tool", "tool_call_id": f"call_{number}", "content": "Sunny, 20 degrees"},
            {"role": "assistant", "content": f"In {city} it is sunny with 20 degrees."},
        ]
    return [*history, {"role": "user", "content": "How is the weather in Madrid?"}]
