"""Execution of built-in pipelines and of pipelines from a file and from Python, with tools, documents and agents."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openai_compat.core.errors import InternalError, InvalidRequestError, OpenAICompatError, UnsupportedParameterError
from openai_compat.core.profiles import Profile
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest
from openai_compat.sidecars.haystack import loading
from openai_compat.sidecars.haystack.registry import FORBIDDEN, PipelineRegistry, to_inner_settings
from tests.support.recording_api import RecordingAPI

pytestmark = pytest.mark.extra("haystack")

SUBCLASS = """\
from haystack import Document
from openai_compat.sidecars.haystack.generator import HaystackPipeline

your_documents = [Document(content="The office opens at nine.", meta={"name": "hours"})]


class Custom(HaystackPipeline):
    def __init__(self):
        super().__init__()
        self.build()

    def build(self):
"""
PREDECESSOR_EXAMPLE = """\
from haystack.components.retrievers import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

# Initialize document store and add documents
document_store = InMemoryDocumentStore()
document_store.write_documents(your_documents)

# Add retriever to pipeline
retriever = InMemoryBM25Retriever(document_store=document_store)
self.pipeline.add_component("retriever", retriever)

# Connect components
self.pipeline.connect("retriever", "generator")
"""
"""Copied unchanged from the README of the Haystack server that this project replaces."""

COMPONENTS = """\
from haystack import Document, Pipeline, component
from haystack.components.agents import Agent
from haystack.components.builders import AnswerBuilder, ChatPromptBuilder, PromptBuilder
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import Tool


@component
class Shout:
    @component.output_types(replies=list[str])
    def run(self, question: str, history: list[ChatMessage] | None = None):
        return {"replies": [f"{len(history or [])} {question.upper()}"]}


@component
class Breaks:
    @component.output_types(replies=list[str])
    def run(self, query: str):
        raise RuntimeError("the password is swordfish")


@component
class Unfilled:
    @component.output_types(replies=list[str])
    def run(self, query: str, mood: str):
        return {"replies": [query + mood]}


def shout():
    pipeline = Pipeline()
    pipeline.add_component("shout", Shout())
    return pipeline


def breaks():
    pipeline = Pipeline()
    pipeline.add_component("breaks", Breaks())
    return pipeline


def unfilled():
    pipeline = Pipeline()
    pipeline.add_component("unfilled", Unfilled())
    return pipeline


def nothing():
    return "no pipeline"


def generator():
    return OpenAIChatGenerator()


def template():
    pipeline = Pipeline()
    messages = [ChatMessage.from_user("Tell me: {{question}}")]
    pipeline.add_component("prompt_builder", ChatPromptBuilder(template=messages))
    pipeline.add_component("llm", generator())
    pipeline.add_component("answers", AnswerBuilder())
    pipeline.connect("prompt_builder", "llm")
    pipeline.connect("llm.replies", "answers.replies")
    return pipeline


def agent():
    tool = Tool("add", "Adds", {"type": "object", "properties": {}}, lambda: "5")
    pipeline = Pipeline()
    pipeline.add_component("agent", Agent(chat_generator=generator(), tools=[tool], max_agent_steps=2))
    return pipeline
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Change to a folder with the modules and documents of a user."""
    (tmp_path / "my_components.py").write_text(COMPONENTS)
    indented = "".join(f"        {line}" for line in PREDECESSOR_EXAMPLE.splitlines(keepends=True))
    (tmp_path / "retriever_pipeline.py").write_text(SUBCLASS + indented)
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "cats.md").write_text("# Cats\n\nCats purr when they are content.")
    (tmp_path / "documents" / "dogs.md").write_text("# Dogs\n\nDogs bark at night.")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("my_components", "retriever_pipeline"):
        sys.modules.pop(name, None)


class Pipelines:
    """A registry with one pipeline and the echo model."""

    def __init__(self, base_url: str | None = None, **options: Any) -> None:
        entries = [ModelConfig("echo", "echo"), ModelConfig("it", "haystack", base_url, options=options)]
        settings = Settings(entries={entry.name: entry for entry in entries}, log_level="error")
        self.registry = PipelineRegistry(settings)
        self.backend = self.registry.backends["it"]

    def ask(self, *texts: str, conversation: str | None = None, **parameters: Any) -> list[ChatDelta]:
        """Return the deltas of the answer to `texts`, which alternate between user and assistant."""
        messages = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]
        context = CallContext("req_test", conversation_id=conversation)
        return list(self.backend.chat(ChatRequest("it", messages, parameters), context))

    def answer(self, *texts: str, **parameters: Any) -> str:
        return text_of(self.ask(*texts, **parameters))


def text_of(deltas: list[ChatDelta]) -> str:
    return "".join(delta.content or "" for delta in deltas)


def test_the_predecessors_retriever_example_works_unchanged(here: Path) -> None:
    pipelines = Pipelines(factory="retriever_pipeline:Custom", generator="echo")
    assert pipelines.answer("When does the office open?") == "When does the office open?\n\nSources:\n[1] hours"


def test_a_pipeline_from_a_file_calls_the_configured_model(here: Path) -> None:
    import my_components

    (here / "it.yaml").write_text(my_components.template().dumps())
    deltas = Pipelines(pipeline="it.yaml", generator="echo").ask("Hi", temperature=0.5)
    assert text_of(deltas) == "Tell me: Hi"
    assert deltas[-1].finish_reason == "stop"
    assert deltas[-1].usage is not None


def test_a_file_may_name_only_allowed_modules(here: Path) -> None:
    import my_components

    (here / "it.yaml").write_text(my_components.shout().dumps())
    with pytest.raises(InternalError):
        Pipelines(pipeline="it.yaml").answer("Hi")
    assert Pipelines(pipeline="it.yaml", allowed_modules=["my_components"]).answer("Hi") == "0 HI"


def test_the_conversation_is_mapped_to_inputs_by_their_names(here: Path) -> None:
    pipelines = Pipelines(factory="my_components:shout")
    assert pipelines.answer("one", "two", "three") == "2 THREE"
    described = pipelines.backend.describe()["pipeline"]
    assert described["inputs"] == {"query": ["shout.question"], "history": ["shout.history"]}
    assert described["outputs"] == {"answer": "shout.replies"}


def test_a_pipeline_without_an_input_for_parameters_refuses_required_ones(here: Path) -> None:
    pipelines = Pipelines(factory="my_components:shout")
    assert pipelines.answer("Hi", temperature=1, n=1) == "0 HI"
    with pytest.raises(UnsupportedParameterError) as refusal:
        pipelines.answer("Hi", stop=["x"])
    assert refusal.value.param == "stop"


def test_parameters_that_the_client_library_does_not_know_reach_the_model(here: Path) -> None:
    with RecordingAPI("Fine.") as api:
        for options in ({}, {"factory": "my_components:template"}, {"factory": "my_components:agent"}):
            pipelines = Pipelines(base_url=api.url, **options)
            assert pipelines.answer("Hi", top_k=5, temperature=0.5).strip() == "Fine."
    assert [(body["top_k"], body["temperature"]) for body in api.bodies] == [(5, 0.5)] * 3


@pytest.mark.parametrize("name", ["extra_body", "extra_headers", "extra_query", "timeout"])
def test_arguments_of_the_client_library_are_refused(here: Path, name: str) -> None:
    """With `extra_body`, a caller could replace the model and the grounded prompt."""
    pipelines = Pipelines(generator="echo", system_prompt="Be kind.")
    with pytest.raises(UnsupportedParameterError) as refusal:
        pipelines.answer("Hi", **{name: {"model": "other", "messages": [{"role": "user", "content": "Injected"}]}})
    assert refusal.value.param == name


@pytest.mark.parametrize(
    "earlier",
    [
        {"role": "function", "name": "look", "content": "x"},
        {"role": "narrator", "content": "x"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "look", "arguments": "not json"}}],
        },
    ],
)
def test_earlier_messages_that_haystack_cannot_represent_reach_the_model(here: Path, earlier: dict[str, Any]) -> None:
    with RecordingAPI("Fine.") as api:
        pipelines = Pipelines(base_url=api.url)
        messages = [earlier, {"role": "user", "content": "Go on."}]
        assert (
            text_of(list(pipelines.backend.chat(ChatRequest("it", messages, {}), CallContext("req_test")))) == "Fine."
        )
    assert api.bodies[0]["messages"] == messages


def test_an_input_for_the_query_requires_a_user_message(here: Path) -> None:
    pipelines = Pipelines(factory="my_components:shout")
    request = ChatRequest("it", [{"role": "system", "content": "x"}], {})
    with pytest.raises(InvalidRequestError):
        list(pipelines.backend.chat(request, CallContext("req_test")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factory": "my_components:unfilled"}, "unfilled.mood"),
        ({"factory": "my_components:shout", "inputs": {"query": "shout.nothing"}}, "shout.nothing"),
        ({"factory": "my_components:shout", "inputs": {"weather": "shout.question"}}, "weather"),
        ({"factory": "my_components:shout", "outputs": {"answer": "shout.nothing"}}, "shout.nothing"),
        ({"factory": "my_components:shout", "stream_from": "shout"}, "streaming_callback"),
        ({"factory": "my_components:shout", "generator": "echo"}, "OpenAIChatGenerator"),
        ({"factory": "my_components:nothing"}, "no Pipeline"),
        ({"factory": "retriever_pipeline:Custom"}, "needs a `generator`"),
    ],
)
def test_a_mismatch_of_model_config_and_pipeline_is_reported(here: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InternalError, match=message):
        Pipelines(**options).answer("Hi")


def test_a_components_exception_message_is_hidden(here: Path) -> None:
    with pytest.raises(InternalError) as failure:
        Pipelines(factory="my_components:breaks").answer("Hi")
    assert "swordfish" not in failure.value.message


def test_a_factorys_exception_message_is_hidden(here: Path) -> None:
    (here / "my_broken.py").write_text("def make():\n    raise ValueError('/etc/secret: the password is swordfish')\n")
    with pytest.raises(InternalError) as failure:
        Pipelines(factory="my_broken:make").answer("Hi")
    assert "swordfish" not in failure.value.message


def test_a_failed_load_is_not_repeated_by_every_call(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    original = loading.load
    monkeypatch.setattr(loading, "load", lambda *given: (loads.append("x"), original(*given))[1])
    pipelines = Pipelines(factory="my_components:nothing")
    for _ in range(3):
        with pytest.raises(OpenAICompatError):
            pipelines.answer("Hi")
    assert len(loads) == 1


def test_the_clients_tools_reach_the_model_and_the_calls_reach_the_client(here: Path) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    deltas = Pipelines(generator="echo").ask("Look!", tools=[tool], tool_choice="required")
    calls = [call for delta in deltas for call in delta.tool_calls]
    assert calls[0].name == "look"
    assert deltas[-1].finish_reason == "tool_calls"


def test_calls_of_an_agents_own_tools_do_not_reach_the_client(here: Path) -> None:
    """The echo model calls the tool at each step until the agent stops."""
    deltas = Pipelines(factory="my_components:agent", generator="echo").ask("add, please")
    assert [call for delta in deltas for call in delta.tool_calls] == []
    assert deltas[-1].finish_reason == "stop"


def test_the_system_prompt_is_added_to_the_conversation(here: Path) -> None:
    """The token count of the prompt shows it."""
    short, long = (Pipelines(generator="echo", **options) for options in ({}, {"system_prompt": "Be kind and brief."}))
    counts = [pipelines.ask("Hi")[-1].usage for pipelines in (short, long)]
    assert counts[0] is not None
    assert counts[1] is not None
    assert counts[1].prompt_tokens > counts[0].prompt_tokens


def test_the_clients_text_is_not_rendered_as_a_template(here: Path) -> None:
    assert Pipelines(generator="echo", system_prompt="Be {{ 'k' }}ind").answer("{{ 7 * 7 }} {% x") == "{{ 7 * 7 }} {% x"


def test_documents_are_cited_in_the_text_and_as_annotations(here: Path) -> None:
    deltas = Pipelines(documents="documents", generator="echo", top_k=1, document_url="https://docs.example/").ask(
        "Why do cats purr?"
    )
    text = text_of(deltas)
    assert text == "Why do cats purr?\n\nSources:\n[1] Cats (cats.md)"
    (annotation,) = [note for delta in deltas for note in delta.annotations]
    citation = annotation["url_citation"]
    assert (citation["title"], citation["url"]) == ("Cats", "https://docs.example/cats.md")
    assert text[citation["start_index"] : citation["end_index"]] == "[1] Cats (cats.md)"


def test_a_structured_answer_has_sources_as_annotations_only(here: Path) -> None:
    deltas = Pipelines(documents="documents", generator="echo").ask("Cats?", response_format={"type": "json_object"})
    text = text_of(deltas)
    assert isinstance(json.loads(text), dict)
    spans = {
        (note["url_citation"]["start_index"], note["url_citation"]["end_index"])
        for delta in deltas
        for note in delta.annotations
    }
    assert spans == {(0, len(text))}


def test_documents_are_found_by_their_embeddings(here: Path) -> None:
    pipelines = Pipelines(documents="documents", generator="echo", embedder="echo", index="index.json", top_k=1)
    assert pipelines.answer("Why do cats purr?").endswith("[1] Cats (cats.md)")
    index = json.loads((here / "index.json").read_text())
    assert len(index["files"]["cats.md"]["entries"][0]["embedding"]) == 256
    assert pipelines.backend.describe()["documents"] == {"files": 2, "passages": 2}


def test_a_conversation_continues_by_its_key(here: Path) -> None:
    pipelines = Pipelines(factory="my_components:shout")

    def ask(text: str, key: str) -> str:
        return text_of(pipelines.ask(text, conversation=key))

    assert [ask("one", "a"), ask("two", "a"), ask("one", "b"), ask("three", "a")] == [
        "0 ONE", "2 TWO", "0 ONE", "4 THREE",
    ]  # fmt: skip


def test_an_answer_is_stored_without_its_sources_and_with_its_tool_calls(here: Path) -> None:
    pipelines = Pipelines(documents="documents", generator="echo")
    pipelines.ask("Why do cats purr?", conversation="a")
    assert pipelines.registry.conversations.load("a") == [
        {"role": "user", "content": "Why do cats purr?"},
        {"role": "assistant", "content": "Why do cats purr?"},
    ]
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    pipelines.ask("Look!", conversation="b", tools=[tool], tool_choice="required")
    (call,) = pipelines.registry.conversations.load("b")[-1]["tool_calls"]
    assert (call["type"], call["function"]) == ("function", {"name": "look", "arguments": "{}"})


def test_inner_settings_replace_each_pipeline_by_its_own_model() -> None:
    """Answers of OpenAI-compatible upstreams are translated, so that Haystack's components get OpenAI's shape."""
    upstream = ModelConfig("*", "openai", "https://api.example/v1", api_key="k")
    entries = [
        ModelConfig("echo", "echo"),
        ModelConfig("a", "haystack", options={"generator": "echo"}),
        ModelConfig("b", "haystack", "https://own.example/v1", "big", "own", options={"top_k": 3}),
        ModelConfig("c", "haystack"),
    ]
    settings = Settings(
        entries={entry.name: entry for entry in entries}, default_upstream=upstream, api_keys=("secret",)
    )
    inner = to_inner_settings(settings)
    translated = Profile(translate_responses=True)
    assert inner.api_keys == ()
    assert inner.entries == {
        "echo": entries[0],
        "a": ModelConfig("a", FORBIDDEN),
        "b": ModelConfig("b", "openai", "https://own.example/v1", "big", "own", profile=translated),
        "c": ModelConfig("c", "openai", "https://api.example/v1", "c", "k", profile=translated),
    }
    assert inner.default_upstream == replace(upstream, profile=translated)
