"""Local models, asked as the service asks them: what users notice of sampling, stopping, batching and faults."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.backend_contract import collect, finish_reasons, text_of, wait_until
from tests.support.tiny_models import (
    PLAIN_TEMPLATE,
    SCRIPT,
    TOOL_TEMPLATE,
    byte_tokenizer,
    require_local_extra,
    save_encoder,
    save_random_model,
    save_reciting_model,
)

require_local_extra()

import torch  # noqa: E402 - it may not be there

from openai_compat.backends.huggingface.model_options import LocalModel  # noqa: E402
from openai_compat.core.errors import InternalError, InvalidRequestError, ModelBusyError, ModelUnavailableError  # noqa: E402
from openai_compat.core.streams import close_stream  # noqa: E402
from openai_compat.core.types import CallContext, ChatRequest, CompletionRequest, EmbeddingsRequest  # noqa: E402
from openai_compat.sidecars.huggingface.models.loading import estimate_bytes, load_model  # noqa: E402


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Saves a model, loads it, and closes it in the end."""
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


def test_says_what_the_model_says_and_ends_where_it_ends(reciting: Any) -> None:
    deltas = complete(reciting)
    assert text_of(deltas, 0) == SCRIPT[1:]
    assert finish_reasons(deltas) == {0: "stop"}
    bytes_and_end = len(SCRIPT[1:].encode()) + 1
    assert (deltas[-1].usage.prompt_tokens, deltas[-1].usage.completion_tokens) == (1, bytes_and_end)
    assert "\ufffd" not in "".join(delta.text for delta in deltas)


def test_goes_on_with_a_message_of_the_assistants_where_that_is_asked(reciting: Any) -> None:
    begun = [{"role": "user", "content": "Say it"}, {"role": "assistant", "content": SCRIPT[:4]}]

    def said(messages: list[dict[str, str]], **parameters: Any) -> str:
        request = ChatRequest("m", messages, {"temperature": 0, **parameters})
        return text_of(collect(reciting.chat(request, CallContext("test"))), 0)

    assert said(begun, continue_final_message=True) == SCRIPT[4:]
    assert said(begun) == said(begun, continue_final_message=False) == SCRIPT[1:]
    for messages in (begun[:1], [*begun[:1], {"role": "assistant", "content": ""}]):
        with pytest.raises(InvalidRequestError, match="continue_final_message"):
            said(messages, continue_final_message=True)


@pytest.mark.parametrize("options", ["x", ["x"], 1])
def test_options_of_the_template_that_are_no_object_are_refused(reciting: Any, options: Any) -> None:
    with pytest.raises(InvalidRequestError, match="chat_template_kwargs"):
        chat(reciting, chat_template_kwargs=options)


def test_options_of_the_template_change_nothing_of_ours(reciting: Any) -> None:
    assert text_of(chat(reciting, chat_template_kwargs={"tokenize": True, "tools": 1}), 0) == SCRIPT[1:]


def test_a_row_says_how_to_choose_where_a_call_does_not(tmp_path: Path) -> None:
    entry = LocalModel(name="m", hf_repo=str(save_random_model(tmp_path)), device="cpu", temperature=0)
    model = load_model(entry, str)
    try:
        told, unasked, hot = (
            text_of(complete(model, **asked), 0) for asked in ({}, {"temperature": None}, {"temperature": 2, "seed": 1})
        )
    finally:
        model.close()
    assert unasked == told != hot


def test_a_text_cut_within_a_character(reciting: Any) -> None:
    deltas = complete(reciting, max_tokens=3)
    assert text_of(deltas, 0) == "bc\ufffd"
    assert finish_reasons(deltas) == {0: "length"}


@pytest.mark.parametrize(
    ("stop", "text"), [("d\u6771", "bc\u00e9"), (["h", "e\U0001f3c3f"], "bc\u00e9d\u6771"), ("b", "")]
)
def test_nothing_of_a_stop_string_is_told(reciting: Any, stop: Any, text: str) -> None:
    deltas = complete(reciting, stop=stop)
    assert (text_of(deltas, 0), finish_reasons(deltas)) == (text, {0: "stop"})


def test_a_stop_string_that_only_began(reciting: Any) -> None:
    assert text_of(complete(reciting, stop="gh!"), 0) == SCRIPT[1:]


def test_echo_and_prompts_in_every_shape(reciting: Any) -> None:
    tokens = byte_tokenizer(None)("ab")["input_ids"]
    deltas = complete(reciting, ["ab", tokens, "c\u00e9"], echo=True, max_tokens=1, n=2)
    assert [text_of(deltas, index) for index in range(6)] == ["abc", "abc", "abc", "abc", "c\u00e9d", "c\u00e9d"]
    usage = deltas[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (7, 6)


def test_echo_with_log_probabilities_scores_the_prompt(noisy: Any) -> None:
    deltas = complete(noisy, "a prompt", echo=True, logprobs=2, max_tokens=2)
    logprobs = [logprob for delta in deltas for logprob in delta.logprobs]
    assert "".join(logprob.token for logprob in logprobs) == text_of(deltas, 0)
    assert text_of(deltas, 0).startswith("a prompt")
    assert logprobs[0].logprob is None
    scored = complete(noisy, "a promp", logprobs=2, max_tokens=1)[0].logprobs[0]
    assert dict(logprobs[7].top) == pytest.approx(dict(scored.top), abs=1e-4)


def test_a_prompt_alone_can_be_scored(noisy: Any) -> None:
    deltas = complete(noisy, "prompt", echo=True, logprobs=0, max_tokens=0)
    assert (text_of(deltas, 0), finish_reasons(deltas)) == ("prompt", {0: "length"})
    assert deltas[-1].usage.completion_tokens == 0


def test_log_probabilities_of_a_cut_text_make_it_up(reciting: Any) -> None:
    deltas = complete(reciting, logprobs=1, stop="e\U0001f3c3")
    assert "".join(item.token for delta in deltas for item in delta.logprobs) == text_of(deltas, 0) == "bc\u00e9d\u6771"


def test_the_same_seed_says_the_same_also_among_strangers(noisy: Any) -> None:
    wanted = text_of(complete(noisy, "once", temperature=1, seed=7), 0)
    others = [text_of(complete(noisy, "once", temperature=1, seed=seed), 0) for seed in (8, 9)]
    assert wanted not in others
    with ThreadPoolExecutor(12) as pool:
        strangers = [pool.submit(complete, noisy, "x" * length, temperature=1) for length in range(1, 11)]
        again = [pool.submit(complete, noisy, "once", temperature=1, seed=7) for _ in range(2)]
        assert [text_of(future.result(), 0) for future in again] == [wanted, wanted]
        assert all(future.result() for future in strangers)


def test_choices_of_one_call_differ_where_chance_decides(noisy: Any) -> None:
    deltas = complete(noisy, "once", temperature=1.5, seed=7, n=3)
    assert len({text_of(deltas, index) for index in range(3)}) == 3


def test_in_a_batch_each_gets_what_it_gets_alone(noisy: Any) -> None:
    prompts = ["abc" * length for length in (1, 9, 2, 40, 5, 90, 3)]
    alone = [text_of(complete(noisy, prompt), 0) for prompt in prompts]
    with ThreadPoolExecutor(len(prompts)) as pool:
        together = list(pool.map(lambda prompt: text_of(complete(noisy, prompt), 0), prompts))
    assert together == alone
    in_one_call = complete(noisy, prompts)
    assert [text_of(in_one_call, index) for index in range(len(prompts))] == alone


def test_top_p_zero_is_the_likeliest(noisy: Any) -> None:
    assert text_of(complete(noisy, "abc", temperature=1, top_p=0), 0) == text_of(complete(noisy, "abc"), 0)


def test_logit_bias_decides(reciting: Any) -> None:
    (token,) = byte_tokenizer(None)("z")["input_ids"]
    assert text_of(complete(reciting, logit_bias={str(token): 100}, max_tokens=3), 0) == "zzz"


def test_penalties_end_repetition(reciting: Any) -> None:
    (token,) = byte_tokenizer(None)("z")["input_ids"]
    wanted = {"logit_bias": {str(token): 8}, "max_tokens": 12}
    assert text_of(complete(reciting, "z", **wanted), 0) == "z" * 12
    often = text_of(complete(reciting, "z", **wanted, frequency_penalty=2), 0)
    assert 2 <= len(often) - len(often.lstrip("z")) <= 6
    wanted["logit_bias"] = {str(token): 1.5}
    assert text_of(complete(reciting, "z", **wanted, presence_penalty=2), 0).startswith("z")
    assert not text_of(complete(reciting, "z", **wanted, presence_penalty=2), 0).startswith("zz")


def test_best_of_gives_the_likeliest(noisy: Any) -> None:
    def mean(deltas: Sequence[Any], index: int) -> float:
        values = [item.logprob for delta in deltas if delta.index == index for item in delta.logprobs]
        return sum(values) / len(values)

    sampling = {"temperature": 1.5, "seed": 3, "max_tokens": 8, "logprobs": 0}
    every = complete(noisy, "once", n=5, **sampling)
    best = complete(noisy, "once", n=2, best_of=5, **sampling)
    ranked = sorted(range(5), key=lambda index: mean(every, index), reverse=True)
    assert [text_of(best, index) for index in range(2)] == [text_of(every, index) for index in ranked[:2]]
    assert best[-1].usage.completion_tokens == 40
    quiet = complete(noisy, "once", best_of=5, **{**sampling, "logprobs": None} | {"logprobs": 0})
    assert text_of(quiet, 0) == text_of(every, ranked[0])


def test_a_prompt_beyond_the_window_names_both_numbers(reciting: Any) -> None:
    for ask in (lambda: complete(reciting, "a" * 300), lambda: chat(reciting, "a" * 300)):
        with pytest.raises(InvalidRequestError, match=r"256 tokens.* 3[0-9]+ tokens") as refusal:
            ask()
        assert refusal.value.code == "context_length_exceeded"


def test_the_window_ends_an_answer(noisy: Any) -> None:
    deltas = complete(noisy, "a" * 500, max_tokens=100)
    assert finish_reasons(deltas) == {0: "length"}
    assert deltas[-1].usage.completion_tokens == 12


@pytest.mark.parametrize(
    ("prompt", "parameters"),
    [([[5, 100_000]], {}), ([[-1]], {}), ("a", {"logit_bias": {"x": 1}}), ("a", {"logit_bias": {"5": float("nan")}})],
)
def test_nonsense_is_refused(reciting: Any, prompt: Any, parameters: Any) -> None:
    with pytest.raises(InvalidRequestError):
        complete(reciting, prompt, **parameters)


def test_everything_forbidden_hurts_nobody_else(reciting: Any) -> None:
    absurd = {str(token): -100 for token in range(250)}
    with ThreadPoolExecutor(2) as pool:
        poisoned = pool.submit(complete, reciting, logit_bias=absurd, temperature=2)
        assert text_of(complete(reciting), 0) == SCRIPT[1:]
        assert finish_reasons(poisoned.result())


def test_scores_that_are_no_numbers_fail_their_caller_alone(load: Callable[..., Any], monkeypatch: Any) -> None:
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


def test_out_of_memory_is_told_and_passes(load: Callable[..., Any], monkeypatch: Any) -> None:
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


def test_when_memory_runs_out_in_the_midst_the_longest_goes(load: Callable[..., Any], monkeypatch: Any) -> None:
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


def test_a_fault_of_the_model_fails_those_it_answered_and_nobody_after(
    load: Callable[..., Any], monkeypatch: Any
) -> None:
    model = load(save_random_model)
    with monkeypatch.context() as patch:
        patch.setattr(model._scheduler._forward, "extend", lambda *_, **__: 1 / 0)
        with pytest.raises(InternalError):
            complete(model, "x")
    assert text_of(complete(model, "x"), 0)


def test_whoever_hangs_up_frees_the_place(load: Callable[..., Any]) -> None:
    model = load(save_random_model, max_batch=1, max_position_embeddings=100_000)
    request = CompletionRequest("m", ["a"], {"max_tokens": 90_000, "temperature": 0})
    stream = model.complete(request, CallContext("first"))
    next(stream)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(complete, model, "b", max_tokens=3)
        assert not second.done()
        close_stream(stream)
        assert text_of(second.result(timeout=30), 0)
    wait_until(lambda: model.running_calls == 0, 5)


def test_a_call_of_many_prompts_lets_others_in_between(load: Callable[..., Any]) -> None:
    model = load(save_random_model, max_batch=2)
    crowd = model.complete(CompletionRequest("m", ["a"] * 200, {"max_tokens": 20}), CallContext("crowd"))
    next(crowd)
    assert text_of(complete(model, "b", max_tokens=2), 0)
    assert len(model._scheduler._jobs) == 1
    close_stream(crowd)


def test_chat_goes_through_the_template(reciting: Any) -> None:
    assert text_of(chat(reciting), 0) == SCRIPT[1:]
    rendered = reciting._form.render(ChatRequest("m", [{"role": "user", "content": "Hi"}]))
    assert rendered.text == "user: Hi\na"
    parts = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    with pytest.raises(InvalidRequestError, match="image_url"):
        reciting._form.render(ChatRequest("m", [{"role": "user", "content": parts}]))


def test_a_template_that_fails(load: Callable[..., Any]) -> None:
    broken = load(save_reciting_model, PLAIN_TEMPLATE + "{{ messages[0].content / 2 }}")
    with pytest.raises(InternalError, match="template"):
        chat(broken)
    assert text_of(complete(broken), 0) == SCRIPT[1:]
    strict = load(save_reciting_model, "{{ raise_exception('only the user may speak') }}")
    with pytest.raises(InvalidRequestError, match="only the user may speak"):
        chat(strict)


def test_tools_only_where_the_template_knows_them(reciting: Any, load: Callable[..., Any]) -> None:
    assert "tools" not in reciting.supported_chat_parameters
    assert "tools" in load(save_reciting_model, TOOL_TEMPLATE).supported_chat_parameters


def test_without_a_template_there_is_no_chat(noisy: Any) -> None:
    assert not hasattr(noisy, "chat")


def test_json_by_a_schema_ends_when_it_is_whole(reciting: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"b": {"enum": ["x", "y"]}},
        "required": ["b"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    deltas = chat(reciting, response_format=wanted)
    assert json.loads(text_of(deltas, 0))["b"] in ("x", "y")
    assert finish_reasons(deltas) == {0: "stop"}


def test_embeddings_tell_what_was_cut(load: Callable[..., Any]) -> None:
    model = load(save_encoder)
    tokens = model._tokens(model._loaded, "abcd")[1:]
    result = model.embed(EmbeddingsRequest("m", ["abcd", "x" * 50, tokens]), CallContext("test"))
    assert list(result.truncated) == [1]
    assert list(result.vectors[0]) == pytest.approx(list(result.vectors[2]))
    assert result.usage.prompt_tokens == 6 + 16 + 6
    with pytest.raises(InvalidRequestError):
        model.embed(EmbeddingsRequest("m", [[100_000]]), CallContext("test"))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4}),
        ("MistralConfig", {"num_key_value_heads": 2, "sliding_window": 6}),
        ("GPTNeoXConfig", {}),
        ("BloomConfig", {"n_layer": 2, "n_head": 4}),
    ],
)
def test_rows_that_join_and_leave_change_nothing_for_the_others(name: str, options: dict[str, Any]) -> None:
    """Against the model's own answers, without a cache, for architectures that tell positions in different ways."""
    import transformers

    from openai_compat.sidecars.huggingface.models.forward import ForwardPass

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(3)
    config = getattr(transformers, name)(vocab_size=300, initializer_range=0.5, **sizes, **options)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    forward = ForwardPass(model)
    texts = {row: list(range(5 + row, 5 + row + length)) for row, length in enumerate((3, 17, 9))}

    def check(rows: list[int], scores: Any) -> None:
        for place, row in enumerate(rows):
            alone = model(torch.tensor([texts[row]]), use_cache=False).logits[0, -1]
            assert torch.allclose(scores[place, -1], alone, atol=1e-3)
            texts[row].append(int(alone.argmax()))

    def step(cache: Any, rows: list[int], times: int) -> None:
        for _ in range(times):
            check(rows, forward.extend(cache, [[texts[row][-1]] for row in rows]))

    with torch.inference_mode():
        running, first, second = forward.new_cache(), forward.new_cache(), forward.new_cache()
        first.begin(2)
        check([0, 1], forward.extend(first, [texts[0], texts[1]]))
        running.join(first, [1, 1])
        step(running, [0, 1], 3)
        second.begin(1)
        forward.extend(second, [texts[2][:4]])
        check([2], forward.extend(second, [texts[2][4:]]))
        running.join(second, [1])
        step(running, [0, 1, 2], 3)
        running.remove(1)
        step(running, [0, 2], 3)


def test_int8_keeps_what_the_model_says(tmp_path: Path) -> None:
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


def test_where_memory_runs_out_while_rows_are_moved_nothing_is_lost(monkeypatch: Any) -> None:
    from openai_compat.sidecars.huggingface.models import kv_cache as row_cache

    cache = row_cache.BatchKVCache(layers=3)
    cache.begin(1)
    states = torch.arange(8.0).view(1, 1, 4, 2)
    for layer in cache._layers:
        layer.update(states, states)
    cache.advance([4])
    rebuilt = row_cache._Layer.rebuilt

    def full(layer: Any, *arguments: Any) -> Any:
        if layer is cache._layers[1]:
            raise MemoryError
        return rebuilt(layer, *arguments)

    monkeypatch.setattr(row_cache._Layer, "rebuilt", full)
    with pytest.raises(MemoryError):
        cache.make_room(10_000)
    assert (cache.width, cache.view()) == (4, (0, 4))
    for layer in cache._layers:
        assert torch.equal(layer.keys[:1, :, :4], states)
    monkeypatch.setattr(row_cache, "available_memory", lambda device: 0)
    with pytest.raises(MemoryError, match="bytes"):
        cache.make_room(10_000)


def test_what_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    def reason(**row: Any) -> str:
        with pytest.raises(ModelUnavailableError) as refusal:
            load_model(LocalModel(name="m", device="cpu", **row), str)
        assert str(tmp_path) not in refusal.value.message
        return refusal.value.message

    assert "not on this machine" in reason(hf_repo="nobody/nothing")
    assert "has no config.json" in reason(hf_repo=str(tmp_path))
    assert "x.gguf of the model 'm' is missing" in reason(hf_repo=str(tmp_path), gguf_file="x.gguf")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no-such-thing"}))
    assert "not what this server's version" in reason(hf_repo=str(tmp_path))
    assert estimate_bytes(LocalModel(name="m", hf_repo=str(tmp_path))) is None
    save_random_model(tmp_path)
    assert (estimate_bytes(LocalModel(name="m", hf_repo=str(tmp_path))) or 0) > 10_000
