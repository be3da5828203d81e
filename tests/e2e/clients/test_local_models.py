"""Two real models from packages, as `make run-local` serves them, called by the official client."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from anthropic import Anthropic
from openai import APIStatusError, BadRequestError, OpenAI

from openai_compat.sidecars.huggingface.models.bundled_models import entries
from openai_compat.sidecars.llama_cpp.bundled_models import CHAT_MODEL, EMBEDDING_MODEL
from tests.support.live_server import LiveServer
from tests.support.tiny_models import SCRIPT, save_reciting_model

# Converting the GGUF file takes half a minute on an idle machine, once.
pytestmark = [pytest.mark.extra("local", "local-models"), pytest.mark.slow, pytest.mark.timeout(300)]
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    folder = tmp_path_factory.mktemp("models")
    reciting = {"name": "reciting", "hf_repo": str(save_reciting_model(folder / "reciting", None)), "device": "cpu"}
    file = folder / "models.json"
    chat, embeddings = entries()
    file.write_text(json.dumps([{**chat, "tools": "prompt"}, embeddings, reciting]))
    environment = {"MODELS_FILE": str(file), "OMP_NUM_THREADS": "1", "LOCAL_LOAD_TIMEOUT": "280"}
    with LiveServer(environment) as server, OpenAI(base_url=server.base_url, api_key="none", timeout=290) as client:
        yield client


def test_answers_a_chat(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=CHAT_MODEL, messages=FRANCE, temperature=0)
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert answer.usage.prompt_tokens == 37


def test_answers_sensibly_without_a_temperature(client: OpenAI) -> None:
    """A chat page sends no temperature, and at 1 so small a model writes nonsense."""
    for seed in range(3):
        answer = client.chat.completions.create(model=CHAT_MODEL, messages=FRANCE, seed=seed)  # type: ignore[arg-type]
        assert "Paris" in (answer.choices[0].message.content or "")


def test_continues_an_unfinished_answer(client: OpenAI) -> None:
    """Mid-stream recovery sends this request to a model with `assistant_prefill: continue_final_message`."""
    unfinished = [*FRANCE, {"role": "assistant", "content": "The capital of France"}]
    switches = {"continue_final_message": True, "add_generation_prompt": False}
    answer = client.chat.completions.create(model=CHAT_MODEL, messages=unfinished, temperature=0, extra_body=switches)  # type: ignore[arg-type]
    assert answer.choices[0].message.content == " is Paris."


def test_a_stream_has_the_text_of_the_non_streaming_answer(client: OpenAI) -> None:
    request = {"model": CHAT_MODEL, "messages": FRANCE, "temperature": 0, "max_tokens": 30, "logprobs": True}
    complete = client.chat.completions.create(**request)  # type: ignore[call-overload]
    chunks = list(client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}))  # type: ignore[call-overload]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == complete.choices[0].message.content
    assert "".join(token.token for token in complete.choices[0].logprobs.content) == text
    assert chunks[-1].usage == complete.usage


def test_answers_a_message_of_anthropics_client(client: OpenAI) -> None:
    url = str(client.base_url).removesuffix("/v1/")
    question: Any = {"role": "user", "content": FRANCE[0]["content"]}
    with (
        Anthropic(base_url=url, api_key="none", timeout=290) as anthropic,
        anthropic.messages.stream(model=CHAT_MODEL, max_tokens=30, system="Be brief.", messages=[question]) as stream,
    ):
        assert "Paris" in "".join(stream.text_stream)
        assert stream.get_final_message().stop_reason == "end_turn"


def test_concurrent_callers_get_sensible_answers(client: OpenAI) -> None:
    def ask(country: str) -> str:
        question = [{"role": "user", "content": f"What is the capital of {country}?"}]
        answer = client.chat.completions.create(model=CHAT_MODEL, messages=question, temperature=0, max_tokens=24)  # type: ignore[arg-type]
        return answer.choices[0].message.content or ""

    capitals = {"France": "Paris", "Italy": "Rome", "Germany": "Berlin", "Spain": "Madrid", "Japan": "Tokyo"}
    with ThreadPoolExecutor(len(capitals)) as pool:
        answers = dict(zip(capitals, pool.map(ask, capitals), strict=True))
    correct = {country for country, capital in capitals.items() if capital in answers[country]}
    assert correct >= {"France", "Germany", "Japan"}, answers  # without other calls it does not know all of them either


def test_answers_in_json_by_a_schema(client: OpenAI) -> None:
    properties = {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "minimum": 0, "maximum": 120}}
    schema = {"type": "object", "properties": properties, "required": ["name", "age"], "additionalProperties": False}
    answer = client.chat.completions.create(
        model=CHAT_MODEL,
        messages=[{"role": "user", "content": "Invent a person."}],
        response_format={"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": schema}},
        temperature=0,
    )
    person = json.loads(answer.choices[0].message.content or "")
    assert isinstance(person["age"], int)
    assert person["name"]


WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_calls_a_required_tool_with_arguments_that_match_its_schema(client: OpenAI, choice: Any) -> None:
    """The model's template has no tools, so that the prompt describes them, and the call is constrained."""
    request: Any = {"model": CHAT_MODEL, "messages": FRANCE, "tools": [WEATHER], "tool_choice": choice, "seed": 1}
    response = client.chat.completions.with_raw_response.create(**request, temperature=1)
    assert response.headers["x-openai-compat-adapted"] == "tools=emulated"
    answer = response.parse().choices[0]
    (call,) = answer.message.tool_calls or ()
    arguments = json.loads(call.function.arguments)
    assert (answer.finish_reason, call.function.name) == ("tool_calls", "get_weather")
    assert set(arguments) == {"city", "unit"}
    assert arguments["unit"] in ("C", "F")
    result = {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 21 degrees"}
    history = [*FRANCE, answer.message.model_dump(exclude_none=True), result]
    final = client.chat.completions.create(model=CHAT_MODEL, messages=history, temperature=0, max_tokens=40)  # type: ignore[arg-type]
    assert final.choices[0].message.content


def test_streams_the_arguments_of_a_tool_call_in_parts(client: OpenAI) -> None:
    request: Any = {"model": CHAT_MODEL, "messages": FRANCE, "tools": [WEATHER], "tool_choice": "required", "seed": 1}
    chunks = list(client.chat.completions.create(**request, stream=True))
    first, *others = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert (first.index, first.function.name, first.function.arguments) == (0, "get_weather", "")
    assert first.id
    assert len(others) > 5
    assert all(call.id is None and call.function.name is None for call in others)
    arguments = "".join(call.function.arguments for call in others)
    assert set(json.loads(arguments)) == {"city", "unit"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    complete = client.chat.completions.create(**request).choices[0].message
    assert [call.function.arguments for call in complete.tool_calls or ()] == [arguments]


def test_structured_output_matches_its_schema_a_hundred_times_out_of_a_hundred(client: OpenAI) -> None:
    """At the temperature 1, where so small a model writes nonsense otherwise."""
    place = {"type": "object", "properties": {"x": {"type": "integer", "minimum": -9, "maximum": 9}}}
    properties: list[dict[str, Any]] = [
        {"city": {"type": "string", "maxLength": 8}, "is_capital": {"type": "boolean"}},
        {"sizes": {"type": "array", "items": {"enum": [1, 2.5, "XL"]}, "minItems": 1, "maxItems": 3}},
        {
            "kind": {"enum": ["city", "river"]},
            "next": {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 5}]},
        },
        {"place": {**place, "required": ["x"], "additionalProperties": False}},
    ]
    common = {"type": "object", "additionalProperties": False}
    schemas = [{**common, "properties": names, "required": list(names)} for names in properties]

    def ask(number: int) -> bool:
        schema = schemas[number % len(schemas)]
        format_: Any = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
        answer = client.chat.completions.create(
            model=CHAT_MODEL,
            messages=FRANCE,
            response_format=format_,
            temperature=1,
            seed=number,
            max_tokens=200,  # type: ignore[arg-type]
        ).choices[0]
        jsonschema.validate(json.loads(answer.message.content or ""), schema)
        return answer.finish_reason == "stop"

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(ask, range(100))) == 100


def test_completes_a_text(client: OpenAI) -> None:
    request = {"model": CHAT_MODEL, "prompt": "The capital of France is", "max_tokens": 5, "temperature": 0}
    answer = client.completions.create(**request, echo=True, logprobs=2)  # type: ignore[call-overload]
    choice = answer.choices[0]
    assert choice.text.startswith("The capital of France is Paris")
    assert "".join(choice.logprobs.tokens) == choice.text
    assert choice.logprobs.token_logprobs[0] is None
    assert choice.logprobs.top_logprobs[0] is None
    assert [choice.text[offset:][: len(token)] for offset, token in zip(
        choice.logprobs.text_offset, choice.logprobs.tokens, strict=True
    )] == choice.logprobs.tokens  # fmt: skip
    streamed = list(client.completions.create(**request, stream=True))  # type: ignore[call-overload]
    assert "".join(chunk.choices[0].text for chunk in streamed) == choice.text[len("The capital of France is") :]


def test_the_same_seed_gives_the_same_text_beside_other_calls(client: OpenAI) -> None:
    def write(seed: int, prompt: str = "Once upon") -> str:
        answer = client.completions.create(model=CHAT_MODEL, prompt=prompt, max_tokens=12, seed=seed)
        return answer.choices[0].text

    alone = write(7)
    assert write(8) != alone
    prompts = ["Once upon", "Once upon", "Once upon a time there was", "Once", "Once upon", "The sea " * 40]
    with ThreadPoolExecutor(len(prompts)) as pool:
        together = list(pool.map(write, [7] * len(prompts), prompts))
    assert [text for text, prompt in zip(together, prompts, strict=True) if prompt == "Once upon"] == [alone] * 3


def test_a_model_without_a_template_completes_and_does_not_chat(client: OpenAI) -> None:
    answer = client.completions.create(model="reciting", prompt="a", max_tokens=100, temperature=0)
    assert answer.choices[0].text == SCRIPT[1:]
    with pytest.raises(APIStatusError) as refusal:
        client.chat.completions.create(model="reciting", messages=FRANCE)
    assert (refusal.value.status_code, refusal.value.code) == (501, "chat_completions_not_available")
    assert refusal.value.response.headers["x-should-retry"] == "false"


def test_a_prompt_beyond_the_context_window_is_refused(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match=r"256 tokens.* 400 tokens") as refusal:
        client.completions.create(model="reciting", prompt="a" * 400)
    assert refusal.value.code == "context_length_exceeded"


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / math.hypot(*one) / math.hypot(*other)


def test_embeddings_reflect_the_meaning(client: OpenAI) -> None:
    texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "The stock market fell sharply."]
    cat, kitten, market = (item.embedding for item in client.embeddings.create(model=EMBEDDING_MODEL, input=texts).data)
    assert len(cat) == 384
    assert cosine(cat, kitten) > 0.4 > cosine(cat, market)


def test_token_ids_have_the_embedding_of_their_text(client: OpenAI) -> None:
    """LangChain sends ids of cl100k_base, whatever the model."""
    text = "the market opened higher"
    tokens = pytest.importorskip("rs_bpe").openai.cl100k_base().encode(text)
    of_text = client.embeddings.create(model=EMBEDDING_MODEL, input=text).data[0].embedding
    of_tokens = client.embeddings.create(model=EMBEDDING_MODEL, input=[tokens]).data[0].embedding
    assert of_tokens == pytest.approx(of_text, abs=1e-5)


def test_embeddings_in_both_encodings_and_fewer_dimensions(client: OpenAI) -> None:
    request = {"model": EMBEDDING_MODEL, "input": "the cat", "dimensions": 64}
    numbers = client.embeddings.create(**request, encoding_format="float").data[0].embedding  # type: ignore[arg-type]
    packed = client.embeddings.create(**request, encoding_format="base64").data[0].embedding  # type: ignore[arg-type]
    decoded = struct.unpack("<64f", base64.b64decode(str(packed)))
    assert list(decoded) == pytest.approx(numbers, abs=1e-6)
    assert math.hypot(*numbers) == pytest.approx(1, abs=1e-3)


def test_embeddings_report_truncated_inputs(client: OpenAI) -> None:
    reply = client.embeddings.with_raw_response.create(model=EMBEDDING_MODEL, input=["short", "word " * 400])
    assert reply.headers["x-truncated-inputs"] == "1"


def test_a_gguf_file_is_converted_once(client: OpenAI) -> None:
    """After the first load, `to_safetensors` returns the converted folder without a step."""
    from huggingface_hub import constants

    from openai_compat.sidecars.huggingface.models.gguf import CACHE, to_safetensors

    entry = entries()[0]
    client.chat.completions.create(model=CHAT_MODEL, messages=FRANCE, max_tokens=1)
    steps: list[str] = []
    converted = to_safetensors(Path(entry["hf_repo"]), entry["gguf_file"], "m", steps.append)
    assert converted.parent == Path(constants.HF_HOME) / CACHE
    assert (converted / "model.safetensors").is_file()
    assert steps == []
