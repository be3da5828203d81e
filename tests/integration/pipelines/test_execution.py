"""Pipelines of every origin answer: built in, from a file, from Python; with tools, documents, and an agent."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import InternalError, InvalidRequestError, OpenAICompatError, UnsupportedParameterError
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.types import ChatDelta

SEED = """\
from haystack import Document
from openai_compat.sidecars.haystack.generator import HaystackPipeline

your_documents = [Document(content="The office opens at nine.", meta={"name": "hours"})]


class Custom(HaystackPipeline):
    def __init__(self):
        super().__init__()
        self.build()

    def build(self):
"""
SEEDS_EXAMPLE = """\
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
"""Word for word from the system that this one replaces."""

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
    """The folder where the server would be started, with modules of its user's own."""
    (tmp_path / "my_components.py").write_text(COMPONENTS)
    indented = "".join(f"        {line}" for line in SEEDS_EXAMPLE.splitlines(keepends=True))
    (tmp_path / "seeds_pipeline.py").write_text(SEED + indented)
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "cats.md").write_text("# Cats\n\nCats purr when they are content.")
    (tmp_path / "documents" / "dogs.md").write_text("# Dogs\n\nDogs bark at night.")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("my_components", "seeds_pipeline"):
        sys.modules.pop(name, None)


class Pipelines:
    """A catalog with one row, and the echo model."""

    def __init__(self, **options: Any) -> None:
        from openai_compat.sidecars.haystack.registry import PipelineRegistry

        rows = [ModelConfig("echo", "echo"), ModelConfig("it", "haystack", options=options)]
        self.catalog = PipelineRegistry(Settings(entries={row.name: row for row in rows}, log_level="error"))

    def ask(self, *texts: str, conversation: str | None = None, **parameters: Any) -> list[ChatDelta]:
        """The deltas; `texts` alternate between user and assistant."""
        messages = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]
        request = {
            "model": "it", "messages": messages, "parameters": parameters, "conversation": conversation,
            "request_id": "req_test", "authorization": None,
        }  # fmt: skip
        deltas: list[ChatDelta] = []
        self.catalog.chat(request, deltas.append, CancellationToken())
        return deltas

    def answer(self, *texts: str, **parameters: Any) -> str:
        return text_of(self.ask(*texts, **parameters))


def text_of(deltas: list[ChatDelta]) -> str:
    return "".join(delta.content or "" for delta in deltas)


def test_the_seeds_own_example_of_a_retriever_works_word_for_word(here: Path) -> None:
    pipelines = Pipelines(factory="seeds_pipeline:Custom", generator="echo")
    assert pipelines.answer("When does the office open?") == "When does the office open?\n\nSources:\n[1] hours"


def test_a_pipeline_from_a_file_asks_the_rows_model(here: Path) -> None:
    import my_components

    (here / "it.yaml").write_text(my_components.template().dumps())
    deltas = Pipelines(pipeline="it.yaml", generator="echo").ask("Hi", temperature=0.5)
    assert text_of(deltas) == "Tell me: Hi"
    assert deltas[-1].finish_reason == "stop"
    assert deltas[-1].usage is not None


def test_a_file_may_name_only_what_the_row_allows(here: Path) -> None:
    import my_components

    (here / "it.yaml").write_text(my_components.shout().dumps())
    with pytest.raises(InternalError):
        Pipelines(pipeline="it.yaml").answer("Hi")
    assert Pipelines(pipeline="it.yaml", allowed_modules=["my_components"]).answer("Hi") == "0 HI"


def test_the_conversation_goes_where_its_inputs_are(here: Path) -> None:
    pipelines = Pipelines(factory="my_components:shout")
    assert pipelines.answer("one", "two", "three") == "2 THREE"
    described = pipelines.catalog.describe("it")["pipeline"]
    assert described["inputs"] == {"query": ["shout.question"], "history": ["shout.history"]}
    assert described["outputs"] == {"answer": "shout.replies"}


def test_a_pipeline_without_parameters_refuses_those_that_it_cannot_keep(here: Path) -> None:
    pipelines = Pipelines(factory="my_components:shout")
    assert pipelines.answer("Hi", temperature=1, n=1) == "0 HI"
    with pytest.raises(UnsupportedParameterError) as refusal:
        pipelines.answer("Hi", stop=["x"])
    assert refusal.value.param == "stop"


def test_a_query_needs_a_users_message(here: Path) -> None:
    pipelines = Pipelines(factory="my_components:shout")
    request = {
        "model": "it", "messages": [{"role": "system", "content": "x"}], "parameters": {}, "conversation": None,
        "request_id": "r", "authorization": None,
    }  # fmt: skip
    with pytest.raises(InvalidRequestError):
        pipelines.catalog.chat(request, lambda _: None, CancellationToken())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"factory": "my_components:unfilled"}, "unfilled.mood"),
        ({"factory": "my_components:shout", "inputs": {"query": "shout.nothing"}}, "shout.nothing"),
        ({"factory": "my_components:shout", "inputs": {"weather": "shout.question"}}, "weather"),
        ({"factory": "my_components:shout", "outputs": {"answer": "shout.nothing"}}, "shout.nothing"),
        ({"factory": "my_components:shout", "stream_from": "shout"}, "streaming_callback"),
        ({"factory": "my_components:shout", "generator": "echo"}, "OpenAIChatGenerator"),
        ({"factory": "my_components:nothing"}, "no Pipeline"),
        ({"factory": "seeds_pipeline:Custom"}, "needs a `generator`"),
    ],
)
def test_a_row_that_does_not_fit_its_pipeline_says_why(here: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InternalError, match=says):
        Pipelines(**options).answer("Hi")


def test_what_a_component_says_when_it_breaks_is_not_shown(here: Path) -> None:
    with pytest.raises(Exception) as failure:  # noqa: PT011 - Haystack's own
        Pipelines(factory="my_components:breaks").answer("Hi")
    from openai_compat.sidecars.haystack.errors import to_known_error

    told = to_known_error(failure.value)
    assert isinstance(told, InternalError)
    assert "swordfish" not in told.message


def test_why_a_factory_broke_is_not_shown(here: Path) -> None:
    (here / "my_broken.py").write_text("def make():\n    raise ValueError('/etc/secret: the password is swordfish')\n")
    with pytest.raises(InternalError) as failure:
        Pipelines(factory="my_broken:make").answer("Hi")
    assert "swordfish" not in failure.value.message


def test_a_failed_load_is_not_repeated_for_every_call(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from openai_compat.sidecars.haystack import loading

    loads: list[str] = []
    original = loading.load
    monkeypatch.setattr(loading, "load", lambda *given: (loads.append("x"), original(*given))[1])
    pipelines = Pipelines(factory="my_components:nothing")
    for _ in range(3):
        with pytest.raises(OpenAICompatError):
            pipelines.answer("Hi")
    assert len(loads) == 1


def test_the_clients_tools_reach_the_model_and_its_calls_the_client(here: Path) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    deltas = Pipelines(generator="echo").ask("Look!", tools=[tool], tool_choice="required")
    calls = [call for delta in deltas for call in delta.tool_calls]
    assert calls[0].name == "look"
    assert deltas[-1].finish_reason == "tool_calls"


def test_an_agents_own_tools_stay_its_own(here: Path) -> None:
    """The echo model calls the tool at each step: the agent ends by itself, and the client hears of no call."""
    deltas = Pipelines(factory="my_components:agent", generator="echo").ask("add, please")
    assert [call for delta in deltas for call in delta.tool_calls] == []
    assert deltas[-1].finish_reason == "stop"


def test_a_system_prompt_goes_before_the_clients_own(here: Path) -> None:
    """Seen by the tokens that the model counts."""
    short, long = (Pipelines(generator="echo", **options) for options in ({}, {"system_prompt": "Be kind and brief."}))
    counts = [pipelines.ask("Hi")[-1].usage for pipelines in (short, long)]
    assert counts[0] is not None
    assert counts[1] is not None
    assert counts[1].prompt_tokens > counts[0].prompt_tokens


def test_words_of_the_client_are_no_template(here: Path) -> None:
    assert Pipelines(generator="echo", system_prompt="Be {{ 'k' }}ind").answer("{{ 7 * 7 }} {% x") == "{{ 7 * 7 }} {% x"


def test_documents_are_named_in_the_text_and_as_annotations(here: Path) -> None:
    deltas = Pipelines(documents="documents", generator="echo", top_k=1, document_url="https://docs.example/").ask(
        "Why do cats purr?"
    )
    text = text_of(deltas)
    assert text == "Why do cats purr?\n\nSources:\n[1] Cats (cats.md)"
    (annotation,) = [note for delta in deltas for note in delta.annotations]
    citation = annotation["url_citation"]
    assert (citation["title"], citation["url"]) == ("Cats", "https://docs.example/cats.md")
    assert text[citation["start_index"] : citation["end_index"]] == "[1] Cats (cats.md)"


def test_a_structured_answer_is_not_spoilt_by_its_sources(here: Path) -> None:
    deltas = Pipelines(documents="documents", generator="echo").ask("Cats?", response_format={"type": "json_object"})
    text = text_of(deltas)
    assert isinstance(json.loads(text), dict)
    spans = {
        (note["url_citation"]["start_index"], note["url_citation"]["end_index"])
        for delta in deltas
        for note in delta.annotations
    }
    assert spans == {(0, len(text))}


def test_documents_are_found_by_meaning_too(here: Path) -> None:
    pipelines = Pipelines(documents="documents", generator="echo", embedder="echo", index="kept.json", top_k=1)
    assert pipelines.answer("Why do cats purr?").endswith("[1] Cats (cats.md)")
    kept = json.loads((here / "kept.json").read_text())
    assert len(kept["files"]["cats.md"]["entries"][0]["embedding"]) == 256
    assert pipelines.catalog.describe("it")["documents"] == {"files": 2, "passages": 2}


def test_a_named_conversation_goes_on(here: Path) -> None:
    pipelines = Pipelines(factory="my_components:shout")
    ask = lambda text, name: text_of(pipelines.ask(text, conversation=name))  # noqa: E731 - said three times
    assert [ask("one", "a"), ask("two", "a"), ask("one", "b"), ask("three", "a")] == [
        "0 ONE", "2 TWO", "0 ONE", "4 THREE",
    ]  # fmt: skip


def test_an_answer_is_remembered_without_its_sources_and_with_its_calls(here: Path) -> None:
    pipelines = Pipelines(documents="documents", generator="echo")
    pipelines.ask("Why do cats purr?", conversation="a")
    assert pipelines.catalog.conversations.load("a") == [
        {"role": "user", "content": "Why do cats purr?"},
        {"role": "assistant", "content": "Why do cats purr?"},
    ]
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    pipelines.ask("Look!", conversation="b", tools=[tool], tool_choice="required")
    (call,) = pipelines.catalog.conversations.load("b")[-1]["tool_calls"]
    assert (call["type"], call["function"]) == ("function", {"name": "look", "arguments": "{}"})


def test_each_pipelines_own_model_stands_in_its_place() -> None:
    from openai_compat.sidecars.haystack.registry import NESTED, to_inner_settings

    upstream = ModelConfig("*", "openai", "https://api.example/v1", api_key="k")
    rows = [
        ModelConfig("echo", "echo"),
        ModelConfig("a", "haystack", options={"generator": "echo"}),
        ModelConfig("b", "haystack", "https://own.example/v1", "big", "own", options={"top_k": 3}),
        ModelConfig("c", "haystack"),
    ]
    settings = Settings(entries={row.name: row for row in rows}, default_upstream=upstream, api_keys=("secret",))
    inner = to_inner_settings(settings)
    assert inner.api_keys == ()
    assert inner.entries == {
        "echo": rows[0],
        "a": ModelConfig("a", NESTED),
        "b": ModelConfig("b", "openai", "https://own.example/v1", "big", "own"),
        "c": ModelConfig("c", "openai", "https://api.example/v1", "c", "k"),
    }
