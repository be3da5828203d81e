"""A row of kind `llama_cpp` that moves to llama.cpp's own server or Ray Serve by another `kind` and `base_url`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openai import OpenAI

from openai_compat.sidecars.llama_cpp.bundled_models import CHAT_FILE, chat_folder
from tests.support.live_server import ROOT, LiveServer
from tests.support.llama_server import running_llama_server
from tests.support.ray_serve import running_ray_serve
from tests.support.tool_history import WEATHER, tool_history
from tests.support.tools import require_environment

pytestmark = [pytest.mark.extra("llama-cpp", "local-models"), pytest.mark.slow]

TEMPLATE = ROOT / "tests" / "support" / "chatml_tools.jinja"
KEPT: dict[str, Any] = {
    "name": "assistant",
    "context_window": 1024,
    "max_output_tokens": 256,
    "price": {"input": 0.1, "output": 0.2},
    "timeout": {"first_token": 60},
    "fallbacks": ["spare"],
    "owned_by": "team",
    "metadata": {"tier": "small"},
}
SPARE = {"name": "spare", "kind": "echo", "context_window": 8192}
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0}}, "required": ["age"]}
FRANCE: Any = [{"role": "user", "content": "What is the capital of France?"}]
PERSON: Any = [{"role": "user", "content": "Invent a person."}]
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}


@dataclass(frozen=True)
class Row:
    """A client of a server with the row `assistant`."""

    client: OpenAI

    def ask(self, messages: Any, **options: Any) -> Any:
        options = {"temperature": 0, "max_tokens": 40, **options}
        raw = self.client.chat.completions.with_raw_response.create(model="assistant", messages=messages, **options)
        assert raw.headers["x-openai-compat-upstream"] == "assistant"
        return raw.parse()


@pytest.fixture(scope="module", params=["llama-server", "ray-serve"])
def rows(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Row, Row]]:
    """Yield the row on this machine, and after its move."""
    folder = tmp_path_factory.mktemp("moved")
    with ExitStack() as stack:
        if request.param == "ray-serve":
            require_environment("ray")
            url = stack.enter_context(running_ray_serve(TEMPLATE))
        else:
            url = stack.enter_context(running_llama_server(TEMPLATE))
        local = {
            "kind": "llama_cpp", "gguf_file": str(chat_folder() / CHAT_FILE), "chat_template_file": str(TEMPLATE),
            "max_context_tokens": 1024, "max_batch": 2, "threads": 1,
        }  # fmt: skip
        changes = (local, {"kind": "openai", "base_url": f"{url}/v1"})
        here, elsewhere = (
            stack.enter_context(serving(folder / f"{change['kind']}.json", change)) for change in changes
        )
        yield here, elsewhere


@contextmanager
def serving(file: Path, change: dict[str, Any]) -> Iterator[Row]:
    file.write_text(json.dumps([{**KEPT, **change}, SPARE]))
    with (
        LiveServer({"MODELS_FILE": str(file)}) as server,
        OpenAI(base_url=server.base_url, api_key="none", timeout=90, max_retries=0) as client,
    ):
        yield Row(client)


def read(answer: Any, stream: bool) -> tuple[str, list[tuple[str, Any]], str]:
    """Return the text, the calls and the finish reason of an answer."""
    choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
    deltas = [choice.delta if stream else choice.message for choice in choices]
    functions = [call.function for delta in deltas for call in delta.tool_calls or ()]
    name, arguments = ("".join(getattr(each, key) or "" for each in functions) for key in ("name", "arguments"))
    calls = [(name, json.loads(arguments))] if functions else []
    return "".join(delta.content or "" for delta in deltas), calls, choices[-1].finish_reason


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_has_the_same_answer(rows: tuple[Row, Row], stream: bool) -> None:
    here, elsewhere = (read(row.ask(FRANCE, stream=stream), stream) for row in rows)
    assert here[0]
    assert elsewhere == here


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called(rows: tuple[Row, Row], stream: bool) -> None:
    for row in rows:
        _, calls, reason = read(row.ask(tool_history(), tools=[WEATHER], stream=stream), stream)
        assert (calls, reason) == ([("get_weather", {"city": "Madrid"})], "tool_calls")


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_matches_a_schema(rows: tuple[Row, Row], stream: bool) -> None:
    for row in rows:
        text, _, _ = read(row.ask(PERSON, response_format=FORMAT, stream=stream), stream)
        jsonschema.validate(json.loads(text), SCHEMA)


def test_the_fallback_with_a_larger_window_answers_too_long_a_prompt(rows: tuple[Row, Row]) -> None:
    question: Any = [{"role": "user", "content": "word " * 2000}]
    for row in rows:
        raw = row.client.chat.completions.with_raw_response.create(model="assistant", messages=question)
        assert raw.headers["x-openai-compat-upstream"] == "spare"


def test_the_model_is_described_as_before(rows: tuple[Row, Row]) -> None:
    for row in rows:
        model = row.client.models.retrieve("assistant").model_dump()
        assert model.items() >= {"owned_by": "team", "metadata": {"tier": "small"}, "context_window": 1024}.items()
