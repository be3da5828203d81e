"""Sampling, stopping, batching and errors of local models, called as the services call them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.backend_contract import collect, finish_reasons, text_of
from tests.support.tiny_models import (
    PLAIN_TEMPLATE,
    SCRIPT,
    TOOL_TEMPLATE,
    byte_tokenizer,
    save_encoder,
    save_random_model,
    save_reciting_model,
)
from tests.support.tools import require_extra
from tests.support.waiting import wait_until

pytestmark = require_extra("local")

import torch  # noqa: E402 - it may not be installed

from openai_compat.backends.huggingface.model_options import LocalModel  # noqa: E402
from openai_compat.core.errors import (  # noqa: E402
    InternalError,
    InvalidAnswerError,
    InvalidRequestError,
    ModelBusyError,
)
from openai_compat.core.streams import close_stream  # noqa: E402
from openai_compat.core.tokens import TokenCounter  # noqa: E402
from openai_compat.core.types import CallContext, ChatRequest, CompletionRequest, EmbeddingsRequest  # noqa: E402
from openai_compat.services.embeddings import EmbeddingService  # noqa: E402
from openai_compat.services.token_decoder import TokenDecoder  # noqa: E402
from openai_compat.sidecars.huggingface.models.chat_template import ChatDeltaBuilder, ChatTemplate  # noqa: E402
from openai_compat.sidecars.huggingface.models.loading import load_model  # noqa: E402
from openai_compat.sidecars.huggingface.models.sequence import TextChunk  # noqa: E402


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Return a function that saves and loads a model, which is closed at the end of the module."""
    loaded = []

    def load(save: Callable[..., Path], *arguments: Any, max_batch: int = 16, **options: Any) -> Any:
        folder = save(tmp_path_factory.mktemp("model"), *arguments, **options)
        entry = LocalModel(name="m", hf_repo=str(folder), device="cpu", max_batch=max_batch)
        loaded.append(load_model(entry, str))
        return loaded[-1]

    torch.set_num_threads(1)
    yield load
    for model in loaded:
        model.close()


@pytest.fixture(scope="module")
def reciting(load: Callable[..., Any]) -> Any:
    return load(save_reciting_model)


@pytest.fixture(scope="module")
def noisy(load: Callable[..., Any]) -> Any:
    return load(save_random_model)


def complete(model: Any, prompt: Any = "a", **parameters: Any) -> list[Any]:
    prompts = prompt if isinstance(prompt, list) else [prompt]
    given = {"temperature": 0, "max_tokens": 40, **parameters}
    parameters = {name: value for name, value in given.items() if value is not None}
    return collect(model.complete(CompletionRequest("m", prompts, parameters), CallContext("test")))


def chat(model: Any, text: str = "Say it", **parameters: Any) -> list[Any]:
    request = ChatRequest("m", [{"role": "user", "content": text}], {"temperature": 0, **parameters})
    return collect(model.chat(request, CallContext("test")))


def test_completes_until_the_end_token(reciting: Any) -> None:
    deltas = complete(reciting)
    assert text_of(deltas, 0) == SCRIPT[1:]
    assert finish_reasons(deltas) == {0: "stop"}
    bytes_and_end = len(SCRIPT[1:].encode()) + 1
    assert (deltas[-1].usage.prompt_tokens, deltas[-1].usage.completion_tokens) == (1, bytes_and_end)
    assert "\ufffd" not in "".join(delta.text for delta in deltas)


def test_continue_final_message_continues_the_assistants_message(reciting: Any) -> None:
    messages = [{"role": "user", "content": "Say it"}, {"role": "assistant", "content": SCRIPT[:4]}]

    def answer(messages: list[dict[str, str]], **parameters: Any) -> str:
        request = ChatRequest("m", messages, {"temperature": 0, **parameters})
        return text_of(collect(reciting.chat(request, CallContext("test"))), 0)

    assert answer(messages, continue_final_message=True) == SCRIPT[4:]
    assert answer(messages) == answer(messages, continue_final_message=False) == SCRIPT[1:]
    for invalid in (messages[:1], [*messages[:1], {"role": "assistant", "content": ""}]):
        with pytest.raises(InvalidRequestError, match="continue_final_message"):
            answer(invalid, continue_final_message=True)


@pytest.mark.parametrize("options", ["x", ["x"], 1])
def test_chat_template_kwargs_must_be_an_object(reciting: Any, options: Any) -> None:
    with pytest.raises(InvalidRequestError, match="chat_template_kwargs"):
        chat(reciting, chat_template_kwargs=options)


def test_the_entrys_temperature_is_the_default_of_calls(tmp_path: Path) -> None:
    entry = LocalModel(name="m", hf_repo=str(save_random_model(tmp_path)), device="cpu", temperature=0)
    model = load_model(entry, str)
    try:
        greedy, default, hot = (
            text_of(complete(model, **sent), 0) for sent in ({}, {"temperature": None}, {"temperature": 2, "seed": 1})
        )
    finally:
        model.close()
    assert default == greedy != hot


def test_an_answer_without_a_limit_ends_at_the_default_of_the_model(tmp_path: Path) -> None:
    save_reciting_model(tmp_path, PLAIN_TEMPLATE, window=4096)
    endless = {"logit_bias": {str(byte_tokenizer(None)("z")["input_ids"][0]): 100}}

    def counts(**options: Any) -> list[tuple[int, str]]:
        model = load_model(LocalModel(name="m", hf_repo=str(tmp_path), device="cpu", **options), str)
        try:
            answers = [
                chat(model, **endless),
                chat(model, max_tokens=7, **endless),
                complete(model, max_tokens=None, **endless),
            ]
        finally:
            model.close()
        return [(deltas[-1].usage.completion_tokens, deltas[-1].finish_reason) for deltas in answers]

    assert counts() == [(1024, "length"), (7, "length"), (16, "length")]
    assert counts(default_max_tokens=5) == [(5, "length"), (7, "length"), (5, "length")]
    assert counts(default_max_tokens=500, max_context_tokens=64)[0][0] < 64


def test_max_tokens_within_a_character_ends_with_a_replacement_character(reciting: Any) -> None:
    deltas = complete(reciting, max_tokens=3)
    assert text_of(deltas, 0) == "bc\ufffd"
    assert finish_reasons(deltas) == {0: "length"}


@pytest.mark.parametrize(
    ("stop", "text"), [("d\u6771", "bc\u00e9"), (["h", "e\U0001f3c3f"], "bc\u00e9d\u6771"), ("b", "")]
)
def test_no_part_of_a_stop_string_is_emitted(reciting: Any, stop: Any, text: str) -> None:
    deltas = complete(reciting, stop=stop)
    assert (text_of(deltas, 0), finish_reasons(deltas)) == (text, {0: "stop"})


def test_the_beginning_of_a_stop_string_alone_stays_text(reciting: Any) -> None:
    assert text_of(complete(reciting, stop="gh!"), 0) == SCRIPT[1:]


def test_echo_with_prompts_of_every_type(reciting: Any) -> None:
    tokens = byte_tokenizer(None)("ab")["input_ids"]
    deltas = complete(reciting, ["ab", tokens, "c\u00e9"], echo=True, max_tokens=1, n=2)
    assert [text_of(deltas, index) for index in range(6)] == ["abc", "abc", "abc", "abc", "c\u00e9d", "c\u00e9d"]
    usage = deltas[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (7, 6)


def test_echo_with_logprobs_scores_the_prompt(noisy: Any) -> None:
    deltas = complete(noisy, "a prompt", echo=True, logprobs=2, max_tokens=2)
    logprobs = [logprob for delta in deltas for logprob in delta.logprobs]
    assert "".join(logprob.token for logprob in logprobs) == text_of(deltas, 0)
    assert text_of(deltas, 0).startswith("a prompt")
    assert logprobs[0].logprob is None
    scored = complete(noisy, "a promp", logprobs=2, max_tokens=1)[0].logprobs[0]
    assert dict(logprobs[7].top) == pytest.approx(dict(scored.top), abs=1e-4)


def test_a_prompt_can_be_scored_without_an_answer(noisy: Any) -> None:
    deltas = complete(noisy, "prompt", echo=True, logprobs=0, max_tokens=0)
    assert (text_of(deltas, 0), finish_reasons(deltas)) == ("prompt", {0: "length"})
    assert deltas[-1].usage.completion_tokens == 0


def test_logprobs_match_a_text_cut_by_a_stop_string(reciting: Any) -> None:
    deltas = complete(reciting, logprobs=1, stop="e\U0001f3c3")
    assert "".join(item.token for delta in deltas for item in delta.logprobs) == text_of(deltas, 0) == "bc\u00e9d\u6771"


def test_the_same_seed_gives_the_same_text_beside_other_calls(noisy: Any) -> None:
    expected = text_of(complete(noisy, "once", temperature=1, seed=7), 0)
    others = [text_of(complete(noisy, "once", temperature=1, seed=seed), 0) for seed in (8, 9)]
    assert expected not in others
    with ThreadPoolExecutor(12) as pool:
        unrelated = [pool.submit(complete, noisy, "x" * length, temperature=1) for length in range(1, 11)]
        again = [pool.submit(complete, noisy, "once", temperature=1, seed=7) for _ in range(2)]
        assert [text_of(future.result(), 0) for future in again] == [expected, expected]
        assert all(future.result() for future in unrelated)


def test_choices_of_one_call_differ_at_a_high_temperature(noisy: Any) -> None:
    deltas = complete(noisy, "once", temperature=1.5, seed=7, n=3)
    assert len({text_of(deltas, index) for index in range(3)}) == 3


def test_batching_does_not_change_the_texts(noisy: Any) -> None:
    prompts = ["abc" * length for length in (1, 9, 2, 40, 5, 90, 3)]
    alone = [text_of(complete(noisy, prompt), 0) for prompt in prompts]
    with ThreadPoolExecutor(len(prompts)) as pool:
        together = list(pool.map(lambda prompt: text_of(complete(noisy, prompt), 0), prompts))
    assert together == alone
    in_one_call = complete(noisy, prompts)
    assert [text_of(in_one_call, index) for index in range(len(prompts))] == alone


def test_top_p_zero_chooses_the_likeliest_token(noisy: Any) -> None:
    assert text_of(complete(noisy, "abc", temperature=1, top_p=0), 0) == text_of(complete(noisy, "abc"), 0)


def test_logit_bias_changes_the_chosen_token(reciting: Any) -> None:
    (token,) = byte_tokenizer(None)("z")["input_ids"]
    assert text_of(complete(reciting, logit_bias={str(token): 100}, max_tokens=3), 0) == "zzz"


def test_penalties_end_a_repetition(reciting: Any) -> None:
    (token,) = byte_tokenizer(None)("z")["input_ids"]
    repeating = {"logit_bias": {str(token): 8}, "max_tokens": 12}
    assert text_of(complete(reciting, "z", **repeating), 0) == "z" * 12
    penalized = text_of(complete(reciting, "z", **repeating, frequency_penalty=2), 0)
    assert 2 <= len(penalized) - len(penalized.lstrip("z")) <= 6
    repeating["logit_bias"] = {str(token): 1.5}
    assert text_of(complete(reciting, "z", **repeating, presence_penalty=2), 0).startswith("z")
    assert not text_of(complete(reciting, "z", **repeating, presence_penalty=2), 0).startswith("zz")


def test_best_of_returns_the_likeliest(noisy: Any) -> None:
    def mean(deltas: Sequence[Any], index: int) -> float:
        values = [item.logprob for delta in deltas if delta.index == index for item in delta.logprobs]
        return sum(values) / len(values)

    sampling = {"temperature": 1.5, "seed": 3, "max_tokens": 8, "logprobs": 0}
    every = complete(noisy, "once", n=5, **sampling)
    best = complete(noisy, "once", n=2, best_of=5, **sampling)
    ranked = sorted(range(5), key=lambda index: mean(every, index), reverse=True)
    assert [text_of(best, index) for index in range(2)] == [text_of(every, index) for index in ranked[:2]]
    assert best[-1].usage.completion_tokens == 40
    without_logprobs = complete(noisy, "once", best_of=5, **{**sampling, "logprobs": None})
    assert text_of(without_logprobs, 0) == text_of(every, ranked[0])


def test_the_error_for_a_prompt_beyond_the_window_names_both_numbers(reciting: Any) -> None:
    for call in (lambda: complete(reciting, "a" * 300), lambda: chat(reciting, "a" * 300)):
        with pytest.raises(InvalidRequestError, match=r"256 tokens.* 3[0-9]+ tokens") as refusal:
            call()
        assert refusal.value.code == "context_length_exceeded"


def test_an_answer_ends_at_the_context_window(noisy: Any) -> None:
    deltas = complete(noisy, "a" * 500, max_tokens=100)
    assert finish_reasons(deltas) == {0: "length"}
    assert deltas[-1].usage.completion_tokens == 12


@pytest.mark.parametrize(
    ("prompt", "parameters"),
    [([[5, 100_000]], {}), ([[-1]], {}), ("a", {"logit_bias": {"x": 1}}), ("a", {"logit_bias": {"5": float("nan")}})],
)
def test_invalid_tokens_and_biases_are_refused(reciting: Any, prompt: Any, parameters: Any) -> None:
    with pytest.raises(InvalidRequestError):
        complete(reciting, prompt, **parameters)


def test_a_bias_against_all_tokens_does_not_affect_other_calls(reciting: Any) -> None:
    all_tokens = {str(token): -100 for token in range(250)}
    with ThreadPoolExecutor(2) as pool:
        biased = pool.submit(complete, reciting, logit_bias=all_tokens, temperature=2)
        assert text_of(complete(reciting), 0) == SCRIPT[1:]
        assert finish_reasons(biased.result())


def test_scores_that_are_not_finite_fail_only_their_call(load: Callable[..., Any], monkeypatch: Any) -> None:
    model = load(save_random_model)
    run = model._scheduler._forward.extend

    def poisoned(cache: Any, tokens: Any, **options: Any) -> Any:
        scores = run(cache, tokens, **options)
        for row, gained in enumerate(tokens):
            if gained[-1] == 5:
                scores[row] = torch.nan
        return scores

    monkeypatch.setattr(model._scheduler._forward, "extend", poisoned)
    with pytest.raises(InternalError):
        complete(model, [[9, 9, 5]])
    assert text_of(complete(model, [[9, 9, 6]], logit_bias={"5": -100}), 0)


def test_running_out_of_memory_fails_only_that_call(load: Callable[..., Any], monkeypatch: Any) -> None:
    model = load(save_random_model)
    run = model._scheduler._forward.extend

    def full(cache: Any, tokens: Any, **options: Any) -> Any:
        if len(tokens[0]) > 50:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory")
        return run(cache, tokens, **options)

    monkeypatch.setattr(model._scheduler._forward, "extend", full)
    with pytest.raises(ModelBusyError, match="memory"):
        complete(model, "x" * 60)
    assert text_of(complete(model, "x"), 0)


def test_running_out_of_memory_while_generating_fails_the_longest_sequence(
    load: Callable[..., Any], monkeypatch: Any
) -> None:
    model = load(save_random_model)
    both_run = threading.Event()
    run = model._scheduler._forward.extend

    def full(cache: Any, tokens: Any, **options: Any) -> Any:
        if cache.rows == 2 and all(cache.lengths) and not both_run.is_set():
            both_run.set()
            raise MemoryError
        return run(cache, tokens, **options)

    monkeypatch.setattr(model._scheduler._forward, "extend", full)
    with ThreadPoolExecutor(2) as pool:
        long = pool.submit(complete, model, "x" * 90, max_tokens=400)
        short = pool.submit(complete, model, "y", max_tokens=400)
        assert len(text_of(short.result(), 0)) > 10
        with pytest.raises(ModelBusyError):
            long.result()


def test_an_error_of_the_model_fails_running_calls_and_no_later_ones(
    load: Callable[..., Any], monkeypatch: Any
) -> None:
    model = load(save_random_model)
    with monkeypatch.context() as patch:
        patch.setattr(model._scheduler._forward, "extend", lambda *_, **__: 1 / 0)
        with pytest.raises(InternalError):
            complete(model, "x")
    assert text_of(complete(model, "x"), 0)


def test_closing_a_stream_frees_its_slot(load: Callable[..., Any]) -> None:
    model = load(save_random_model, max_batch=1, max_position_embeddings=100_000)
    request = CompletionRequest("m", ["a"], {"max_tokens": 90_000, "temperature": 0})
    stream = model.complete(request, CallContext("first"))
    next(stream)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(complete, model, "b", max_tokens=3)
        assert not second.done()
        close_stream(stream)
        assert text_of(second.result(timeout=30), 0)
    wait_until(lambda: model.running_calls == 0)


def test_calls_take_turns_with_a_call_of_many_prompts(load: Callable[..., Any]) -> None:
    model = load(save_random_model, max_batch=2)
    crowd = model.complete(CompletionRequest("m", ["a"] * 200, {"max_tokens": 20}), CallContext("crowd"))
    next(crowd)
    assert text_of(complete(model, "b", max_tokens=2), 0)
    assert len(model._scheduler._queue) == 1
    close_stream(crowd)


def test_chat_renders_the_template(reciting: Any) -> None:
    assert text_of(chat(reciting), 0) == SCRIPT[1:]
    rendered = reciting._template.render(ChatRequest("m", [{"role": "user", "content": "Hi"}]))
    assert rendered.text == "user: Hi\na"
    parts = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    with pytest.raises(InvalidRequestError, match="image_url"):
        reciting._template.render(ChatRequest("m", [{"role": "user", "content": parts}]))


def test_a_failing_template_is_an_internal_error(load: Callable[..., Any]) -> None:
    broken = load(save_reciting_model, PLAIN_TEMPLATE + "{{ messages[0].content / 2 }}")
    with pytest.raises(InternalError, match="template"):
        chat(broken)
    assert text_of(complete(broken), 0) == SCRIPT[1:]


def test_a_template_that_raises_an_exception_rejects_the_request(load: Callable[..., Any]) -> None:
    strict = load(save_reciting_model, "{{ raise_exception('only the user may speak') }}")
    with pytest.raises(InvalidRequestError, match="only the user may speak"):
        chat(strict)


def test_tools_are_supported_if_the_template_has_them(reciting: Any, load: Callable[..., Any]) -> None:
    assert "tools" not in reciting.supported_chat_parameters
    assert "tools" in load(save_reciting_model, TOOL_TEMPLATE).supported_chat_parameters


def test_the_prompt_describes_the_tools_if_the_entry_asks_for_it() -> None:
    template = ChatTemplate(byte_tokenizer(PLAIN_TEMPLATE), emulates_tools=True)
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
    ]
    prompt = template.render(ChatRequest("m", messages, {"tools": [tool]}))
    assert prompt.text.startswith("system: You can call tools.")
    assert '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>' in prompt.text
    assert 'user: <tool_response name="f">\n42\n</tool_response>' in prompt.text
    assert prompt.trigger == "<tool_call>"
    forced = template.render(ChatRequest("m", messages, {"tools": [tool], "tool_choice": "required"}))
    assert forced.text.endswith("a<tool_call>")
    free = template.render(ChatRequest("m", messages, {"tools": [tool], "tool_choice": "none"}))
    assert "You can call tools" not in free.text
    assert "42" in free.text


def test_allowed_tools_restrict_the_calls() -> None:
    template = ChatTemplate(byte_tokenizer(TOOL_TEMPLATE))
    tools = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in "fg"]
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "g"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    request = ChatRequest("m", [{"role": "user", "content": "Hello"}], {"tools": tools, "tool_choice": choice})
    schema = template.render(request).schema
    assert schema is not None
    assert [call["properties"]["name"]["const"] for call in schema["anyOf"]] == ["g"]
    for invalid in ({"type": "function", "function": {"name": "h"}}, {"type": "custom", "custom": {"name": "g"}}):
        parameters = {"tools": [invalid], "tool_choice": choice}
        with pytest.raises(InvalidRequestError, match=r"no tool 'g'|only tools of the type 'function'"):
            template.render(ChatRequest("m", [{"role": "user", "content": "Hello"}], parameters))


CITY_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"enum": [10, 20]}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def calling(load: Callable[..., Any]) -> Any:
    return load(save_reciting_model, TOOL_TEMPLATE, 1024)


def calls_of(deltas: Sequence[Any]) -> list[Any]:
    return [call for delta in deltas for call in delta.tool_calls]


def test_the_arguments_of_a_call_are_streamed(calling: Any) -> None:
    deltas = chat(calling, tools=[CITY_TOOL], tool_choice="required", n=2)
    assert finish_reasons(deltas) == {0: "tool_calls", 1: "tool_calls"}
    assert text_of(deltas, 0) == ""
    first, *others = calls_of([delta for delta in deltas if delta.index == 0])
    assert (first.index, first.name, first.arguments) == (0, "weather", "")
    assert first.id.startswith("call_")
    assert len(others) > 10
    assert {(call.index, call.id, call.name) for call in others} == {(0, None, None)}
    assert set(json.loads("".join(call.arguments for call in others))) == {"city", "days"}


def test_a_call_that_the_token_limit_cuts_ends_with_length(calling: Any) -> None:
    deltas = chat(calling, tools=[CITY_TOOL], tool_choice="required", max_tokens=50)
    arguments = "".join(call.arguments for call in calls_of(deltas))
    assert arguments.startswith('{"city": ')
    assert finish_reasons(deltas) == {0: "length"}
    with pytest.raises(ValueError, match="Unterminated string"):
        json.loads(arguments)


@pytest.mark.parametrize(
    "changes",
    [{"stop": "nothing"}, {"parameters": {**CITY_TOOL["function"]["parameters"], "type": ["object"]}}],  # type: ignore[index]
    ids=["stop string", "type"],
)
def test_a_call_that_may_end_anywhere_is_one_delta(calling: Any, changes: dict[str, Any]) -> None:
    """A stop string may cut it, and only an object has an end that can be seen."""
    function = {**CITY_TOOL["function"], **{key: changes[key] for key in changes if key == "parameters"}}  # type: ignore[dict-item]
    sent = {key: changes[key] for key in changes if key != "parameters"}
    deltas = chat(calling, tools=[{"type": "function", "function": function}], tool_choice="required", **sent)
    (call,) = calls_of(deltas)
    assert (call.name, set(json.loads(call.arguments))) == ("weather", {"city", "days"})


def test_a_streamed_call_that_ends_too_early_fails(calling: Any) -> None:
    options = calling._template.render(
        ChatRequest("m", [{"role": "user", "content": "a"}], {"tools": [CITY_TOOL], "tool_choice": "required"})
    ).tools
    begun = '{"name": "weather", "arguments": {"city": "R'
    for reason in ("length", "stop"):
        builder = ChatDeltaBuilder(options, is_constrained=True)
        assert list(builder.build(TextChunk(0, begun), is_last=False))
        last = TextChunk(0, "ome", reason)  # type: ignore[arg-type]
        if reason == "length":
            assert [delta.finish_reason for delta in builder.build(last, is_last=True)] == ["length"]
        else:
            with pytest.raises(InvalidAnswerError, match="before it was complete"):
                list(builder.build(last, is_last=True))


def test_a_broken_call_aborts_the_other_choices(calling: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: ChatDeltaBuilder, chunk: TextChunk, *, is_last: bool) -> Any:
        raise InvalidAnswerError("broken")

    monkeypatch.setattr(ChatDeltaBuilder, "build", fail)
    request = ChatRequest("m", [{"role": "user", "content": "a"}], {"temperature": 0, "n": 2})
    stream = calling.chat(request, CallContext("test"))
    with pytest.raises(InvalidAnswerError, match="broken"):
        next(stream)
    assert list(stream) == []


def test_a_model_without_a_template_cannot_chat(noisy: Any) -> None:
    assert not hasattr(noisy, "chat")


def test_json_by_a_schema_ends_when_it_is_complete(reciting: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"b": {"enum": ["x", "y"]}},
        "required": ["b"],
        "additionalProperties": False,
    }
    response_format = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    deltas = chat(reciting, response_format=response_format)
    assert json.loads(text_of(deltas, 0))["b"] in ("x", "y")
    assert finish_reasons(deltas) == {0: "stop"}


def test_embeddings_report_truncated_inputs(load: Callable[..., Any]) -> None:
    result = load(save_encoder).embed(EmbeddingsRequest("m", ["abcd", "x" * 50, "abcd"]), CallContext("test"))
    assert list(result.truncated) == [1]
    assert list(result.vectors[0]) == pytest.approx(list(result.vectors[2]))
    assert result.usage.prompt_tokens == 6 + 16 + 6


def test_token_ids_are_decoded_with_the_vocabulary_of_the_client(load: Callable[..., Any]) -> None:
    """LangChain sends those of cl100k_base, which are other tokens, or none, of a model with its own vocabulary."""
    vocabulary = pytest.importorskip("rs_bpe").openai.cl100k_base()
    service, model = EmbeddingService(TokenCounter(), TokenDecoder()), load(save_encoder)
    tokens = vocabulary.encode("abcd")
    assert tokens == [69744]

    def embed(*inputs: Any) -> list[list[float]]:
        answer, _, _ = service.create(model, "m", {"input": list(inputs)}, CallContext("test"))
        return [found["embedding"] for found in answer["data"]]

    of_text, of_tokens = embed("abcd")[0], embed(tokens)[0]
    assert of_tokens == pytest.approx(of_text)
    for invalid in (-1, 100_256, 2**70):
        with pytest.raises(InvalidRequestError, match=f"{invalid} is not a token of cl100k_base") as caught:
            embed([invalid])
        assert caught.value.param == "input"


def test_token_ids_without_their_vocabulary_are_refused_with_the_remedy(load: Callable[..., Any]) -> None:
    with pytest.raises(InvalidRequestError, match=r"check_embedding_ctx_length=False.*openai-compat\[tokens\]"):
        load(save_encoder).embed(EmbeddingsRequest("m", [[1, 2]]), CallContext("test"))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4}),
        ("MistralConfig", {"num_key_value_heads": 2, "sliding_window": 6}),
        ("GPTNeoXConfig", {}),
        ("BloomConfig", {"n_layer": 2, "n_head": 4}),
    ],
)
def test_rows_that_are_added_and_removed_do_not_change_the_others(name: str, options: dict[str, Any]) -> None:
    """Compare with the model's scores without a cache, for architectures that encode positions in different ways."""
    import transformers

    from openai_compat.sidecars.huggingface.models.forward import ForwardPass

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(3)
    config = getattr(transformers, name)(vocab_size=300, initializer_range=0.5, **sizes, **options)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    forward = ForwardPass(model)
    texts = {row: list(range(5 + row, 5 + row + length)) for row, length in enumerate((3, 17, 9))}

    def check(rows: list[int], scores: Any) -> None:
        for index, row in enumerate(rows):
            alone = model(torch.tensor([texts[row]]), use_cache=False).logits[0, -1]
            assert torch.allclose(scores[index, -1], alone, atol=1e-3)
            texts[row].append(int(alone.argmax()))

    def step(cache: Any, rows: list[int], times: int) -> None:
        for _ in range(times):
            check(rows, forward.extend(cache, [[texts[row][-1]] for row in rows]))

    with torch.inference_mode():
        running, first, second = forward.new_cache(), forward.new_cache(), forward.new_cache()
        first.start(2)
        check([0, 1], forward.extend(first, [texts[0], texts[1]]))
        running.append(first, [1, 1])
        step(running, [0, 1], 3)
        second.start(1)
        forward.extend(second, [texts[2][:4]])
        check([2], forward.extend(second, [texts[2][4:]]))
        running.append(second, [1])
        step(running, [0, 1, 2], 3)
        running.remove(1)
        step(running, [0, 2], 3)


def test_int8_keeps_the_likeliest_tokens(tmp_path: Path) -> None:
    save_random_model(tmp_path)
    entry = LocalModel(name="m", hf_repo=str(tmp_path), device="cpu", quantize="int8")
    small, plain = load_model(entry, str), load_model(LocalModel(name="m", hf_repo=str(tmp_path), device="cpu"), str)
    try:
        assert small.memory_bytes < plain.memory_bytes
        assert small.describe()["dtype"] == "int8"
        first = [complete(model, "hello", max_tokens=1, logprobs=5)[0].logprobs[0] for model in (small, plain)]
        assert {token for token, _ in first[0].top[:2]} & {token for token, _ in first[1].top[:3]}
    finally:
        small.close()
        plain.close()


def test_running_out_of_memory_in_reallocation_keeps_the_cache(monkeypatch: Any) -> None:
    from openai_compat.sidecars.huggingface.models import kv_cache

    cache = kv_cache.BatchKVCache(layers=3)
    cache.start(1)
    states = torch.arange(8.0).view(1, 1, 4, 2)
    for layer in cache._layers:
        layer.update(states, states)
    cache.advance([4])
    reallocated = kv_cache._Layer.reallocated

    def full(layer: Any, *arguments: Any) -> Any:
        if layer is cache._layers[1]:
            raise MemoryError
        return reallocated(layer, *arguments)

    monkeypatch.setattr(kv_cache._Layer, "reallocated", full)
    with pytest.raises(MemoryError):
        cache.reserve(10_000)
    assert (cache.width, cache.used_columns()) == (4, (0, 4))
    for layer in cache._layers:
        assert torch.equal(layer.keys[:1, :, :4], states)
    monkeypatch.setattr(kv_cache, "available_memory", lambda device: 0)
    with pytest.raises(MemoryError, match="bytes"):
        cache.reserve(10_000)
