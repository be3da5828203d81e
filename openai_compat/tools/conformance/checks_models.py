"""Checks of the model list."""

from __future__ import annotations

from urllib.parse import quote

from .client import CheckSkipped, ConformanceClient, expect, require_error, require_object
from .registry import Section

MODELS = Section("models")


@MODELS.check(
    "the list has id, object, created and owned_by",
    why="typed clients and model pickers read them",
)
def models_list(client: ConformanceClient) -> None:
    reply = require_object(client.send("GET", "models"))
    expect(reply["object"] == "list", f"object {reply['object']!r}")
    expect(isinstance(reply["data"], list), "data is not a list")
    for model in reply["data"]:
        missing = {"id", "object", "created", "owned_by"} - model.keys()
        expect(not missing, f"a model without {', '.join(sorted(missing))}")
        expect(model["object"] == "model" and isinstance(model["created"], int), f"{model}")


@MODELS.check(
    "a model can be retrieved by its id",
    why="some clients look a model up before they use it",
)
def model_by_id(client: ConformanceClient) -> None:
    listed = require_object(client.send("GET", "models"))["data"]
    names = [model["id"] for model in listed]
    name = client.target.model if client.target.model in names or not names else names[0]
    reply = require_object(client.send("GET", f"models/{quote(name, safe='')}"))
    expect(reply["id"] == name and reply["object"] == "model", f"{reply}")


@MODELS.check(
    "an unknown model returns 404 with an error object",
    why="clients show `error.message`, not an HTML page",
)
def unknown_model_by_id(client: ConformanceClient) -> None:
    response = client.send("GET", "models/no-such-model-anywhere")
    if response.status == 200:
        raise CheckSkipped("the server describes any model name")
    require_error(response, 404)
