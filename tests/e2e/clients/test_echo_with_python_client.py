"""The official Python client with the echo model of a server without configuration."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import struct
from typing import Any, Literal

import openai
import pydantic
import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from tests.support.live_server import LiveServer

MODEL = "mock-gpt-model"
QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the weather in Paris?"}]
TEXT = "What is the weather in Paris?"
TOKENS = ["What", " is", " the", " weather", " in", " Paris", "?"]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


class Forecast(pydantic.BaseModel):
    city: str
    celsius: int
    sky: Literal["clear", "cloudy"]
    hours: list[int]


class TestChat:
    def test_complete_answer(self, echo_client: openai.OpenAI) -> None:
        answer = echo_client.chat.completions.create(model=MODEL, messages=QUESTION)
        choice = answer.choices[0]
        assert answer.id.startswith("chatcmpl-")
        assert (answer.object, answer.model) == ("chat.completion", MODEL)
        assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
        assert (choice.message.role, choice.message.content, choice.message.refusal) == ("assistant", TEXT, None)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens > 0
        assert answer.usage.completion_tokens == len(TOKENS)
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + len(TOKENS)
        assert answer.usage.completion_tokens_details is not None
        assert answer._request_id is not None

    def test_answers_have_the_fields_of_openai_only(self, echo_client: openai.OpenAI) -> None:
        answer = echo_client.chat.completions.create(model=MODEL, messages=QUESTION)
        assert answer.model_fields_set == {"id", "object", "created", "model", "choices", "usage"}
        assert answer.choices[0].model_fields_set == {"index", "message", "logprobs", "finish_reason"}
        assert answer.choices[0].message.model_fields_set == {"role", "content", "refusal"}

    def test_several_choices(self, echo_client: openai.OpenAI) -> None:
        answer = echo_client.chat.completions.create(model=MODEL, messages=QUESTION, n=2)
        assert [(choice.index, choice.message.content) for choice in answer.choices] == [(0, TEXT), (1, TEXT)]
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 2 * len(TOKENS)

    def test_logprobs(self, echo_client: openai.OpenAI) -> None:
        answer = echo_client.chat.completions.create(model=MODEL, messages=QUESTION, logprobs=True, top_logprobs=3)
        logprobs = answer.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.content is not None
        assert [item.token for item in logprobs.content] == TOKENS
        for item in logprobs.content:
            assert bytes(item.bytes or ()).decode() == item.token
            assert item.logprob < 0
            assert len(item.top_logprobs) == 3
            assert item.top_logprobs[0].token == item.token

    def test_stop_and_limit(self, echo_client: openai.OpenAI) -> None:
        stopped = echo_client.chat.completions.create(model=MODEL, messages=QUESTION, stop=[" weather", "?"])
        limited = echo_client.chat.completions.create(model=MODEL, messages=QUESTION, max_completion_tokens=2)
        assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("What is the", "stop")
        assert (limited.choices[0].message.content, limited.choices[0].finish_reason) == ("What is", "length")

    def test_every_client_path(self, echo_server: LiveServer) -> None:
        for root in ("/v1", "/api/v1", "", "/openai/v1"):
            with openai.OpenAI(base_url=f"{echo_server.url}{root}", api_key="any", max_retries=0) as client:
                answer = client.chat.completions.create(model=MODEL, messages=QUESTION)
            assert answer.choices[0].message.content == TEXT, root


class TestChatStream:
    def test_chunk_by_chunk(self, echo_client: openai.OpenAI) -> None:
        chunks = list(echo_client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True))
        assert {(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks} == {
            (chunks[0].id, chunks[0].created, MODEL, "chat.completion.chunk")
        }
        deltas = [chunk.choices[0].delta.to_dict() for chunk in chunks]
        assert deltas[0] == {"role": "assistant", "content": "", "refusal": None}
        assert deltas[1:-1] == [{"content": token} for token in TOKENS]
        assert deltas[-1] == {}
        assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
        assert all("usage" not in chunk.model_fields_set for chunk in chunks)

    def test_requested_usage_is_in_the_last_chunk(self, echo_client: openai.OpenAI) -> None:
        *chunks, last = echo_client.chat.completions.create(
            model=MODEL, messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
        assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in chunks)
        assert last.choices == []
        assert last.usage is not None
        assert last.usage.completion_tokens == len(TOKENS)

    def test_a_stream_equals_the_complete_answer(self, echo_client: openai.OpenAI) -> None:
        """The client's accumulator makes the same object of the chunks."""
        parameters: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "n": 2, "logprobs": True, "top_logprobs": 1}
        state = ChatCompletionStreamState()
        for chunk in echo_client.chat.completions.create(
            **parameters, stream=True, stream_options={"include_usage": True}
        ):
            state.handle_chunk(chunk)
        joined = state.get_final_completion().model_dump(exclude_none=True)
        complete = echo_client.chat.completions.create(**parameters).model_dump(exclude_none=True)
        for answer in (joined, complete):
            assert answer.pop("id")
            assert answer.pop("created")
        assert joined == complete

    def test_stream_helper(self, echo_client: openai.OpenAI) -> None:
        with echo_client.chat.completions.stream(model=MODEL, messages=QUESTION) as stream:
            events = list(stream)
            final = stream.get_final_completion()
        assert [event.delta for event in events if event.type == "content.delta"] == ["", *TOKENS]
        assert [event.content for event in events if event.type == "content.done"] == [TEXT]
        assert final.choices[0].message.role == "assistant"
        assert (final.choices[0].message.content, final.choices[0].finish_reason) == (TEXT, "stop")

    def test_length_is_an_error_of_the_helper(self, echo_client: openai.OpenAI) -> None:
        with (
            pytest.raises(openai.LengthFinishReasonError),
            echo_client.chat.completions.stream(
                model=MODEL, messages=QUESTION, response_format=Forecast, max_tokens=3
            ) as stream,
        ):
            stream.until_done()


class TestTools:
    def test_round_trip(self, echo_client: openai.OpenAI) -> None:
        """Call a tool, send its result and get the text."""
        messages: list[Any] = [{"role": "user", "content": "Call get_weather for Paris."}]
        answer = echo_client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])
        choice = answer.choices[0]
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
        assert choice.message.tool_calls is not None
        call = choice.message.tool_calls[0]
        assert call.type == "function"
        assert call.function.name == "get_weather"
        assert json.loads(call.function.arguments).keys() == {"city", "days"}
        messages += [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "Rain, 11 degrees"}]
        answer = echo_client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Rain, 11 degrees", "stop")

    def test_words_of_the_user_are_not_run(self, echo_client: openai.OpenAI) -> None:
        """An agent offers a shell and executes what the model calls."""
        shell: Any = {"type": "function", "function": {"name": "shell", "parameters": {"type": "object"}}}
        for prompt in ("rm -rf /", "Say hello"):
            answer = echo_client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": prompt}], tools=[shell]
            )
            assert (answer.choices[0].message.content, answer.choices[0].message.tool_calls) == (prompt, None)

    def test_streamed_call(self, echo_client: openai.OpenAI) -> None:
        deltas = [
            delta
            for chunk in echo_client.chat.completions.create(
                model=MODEL, messages=QUESTION, tools=[WEATHER], tool_choice="required", stream=True
            )
            for delta in chunk.choices[0].delta.tool_calls or ()
        ]
        first, rest = deltas[0], deltas[1:]
        assert first.function is not None
        assert (first.index, first.type, first.function.name, first.function.arguments) == (
            0, "function", "get_weather", "",
        )  # fmt: skip
        assert first.id
        assert len(rest) > 1
        for delta in rest:
            assert delta.function is not None
            assert (delta.index, delta.id, delta.type, delta.function.name) == (0, None, None, None)
        arguments = "".join(delta.function.arguments or "" for delta in rest if delta.function is not None)
        assert json.loads(arguments).keys() == {"city", "days"}

    def test_stream_helper_parses_the_arguments(self, echo_client: openai.OpenAI) -> None:
        tool = openai.pydantic_function_tool(Forecast, name="report")
        with echo_client.chat.completions.stream(
            model=MODEL, messages=QUESTION, tools=[tool], tool_choice="required"
        ) as stream:
            events = list(stream)
            choice = stream.get_final_completion().choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.tool_calls is not None
        assert isinstance(choice.message.tool_calls[0].function.parsed_arguments, Forecast)
        assert [event.name for event in events if event.type == "tool_calls.function.arguments.done"] == ["report"]

    def test_tool_choice(self, echo_client: openai.OpenAI) -> None:
        tools = [WEATHER, openai.pydantic_function_tool(Forecast, name="report")]
        named = echo_client.chat.completions.create(
            model=MODEL,
            messages=QUESTION,
            tools=tools,
            tool_choice={"type": "function", "function": {"name": "report"}},
        )
        none = echo_client.chat.completions.create(model=MODEL, messages=QUESTION, tools=tools, tool_choice="none")
        assert named.choices[0].message.tool_calls is not None
        assert [call.function.name for call in named.choices[0].message.tool_calls if call.type == "function"] == [
            "report"
        ]
        assert none.choices[0].message.content == TEXT


class TestStructuredAnswers:
    def test_parse(self, echo_client: openai.OpenAI) -> None:
        answer = echo_client.chat.completions.parse(model=MODEL, messages=QUESTION, response_format=Forecast)
        assert isinstance(answer.choices[0].message.parsed, Forecast)
        assert answer.choices[0].finish_reason == "stop"

    def test_streamed_parse(self, echo_client: openai.OpenAI) -> None:
        with echo_client.chat.completions.stream(model=MODEL, messages=QUESTION, response_format=Forecast) as stream:
            parsed = stream.get_final_completion().choices[0].message.parsed
        assert isinstance(parsed, Forecast)

    def test_json_object(self, echo_client: openai.OpenAI) -> None:
        answer = echo_client.chat.completions.create(
            model=MODEL, messages=QUESTION, response_format={"type": "json_object"}
        )
        assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


class TestCompletions:
    def test_prompts_choices_and_echo(self, echo_client: openai.OpenAI) -> None:
        answer = echo_client.completions.create(model=MODEL, prompt=["one two", "three"], n=2, echo=True)
        assert (answer.object, answer.id[:5]) == ("text_completion", "cmpl-")
        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        texts = [choice.text for choice in answer.choices]
        assert texts[0].startswith("one two")
        assert texts[2].startswith("three")
        assert texts[0] == texts[1]
        assert texts[2] == texts[3]
        assert {choice.finish_reason for choice in answer.choices} == {"stop"}

    @pytest.mark.parametrize("prompt", [[1, 2, 3], [[1, 2], [3]]], ids=["token ids", "lists of token ids"])
    def test_token_ids(self, echo_client: openai.OpenAI, prompt: Any) -> None:
        answer = echo_client.completions.create(model=MODEL, prompt=prompt)
        assert len(answer.choices) == (2 if isinstance(prompt[0], list) else 1)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == 3

    def test_logprobs_have_the_old_shape(self, echo_client: openai.OpenAI) -> None:
        answer = echo_client.completions.create(model=MODEL, prompt="one two three", logprobs=2)
        logprobs = answer.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.tokens == ["one", " two", " three"]
        assert logprobs.text_offset == [0, 3, 7]
        assert logprobs.token_logprobs is not None
        assert all(value < 0 for value in logprobs.token_logprobs)
        assert logprobs.top_logprobs is not None
        assert [len(top) for top in logprobs.top_logprobs] == [2, 2, 2]

    def test_limit_defaults_to_sixteen_tokens(self, echo_client: openai.OpenAI) -> None:
        answer = echo_client.completions.create(model=MODEL, prompt="word " * 40)
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 16

    def test_stream(self, echo_client: openai.OpenAI) -> None:
        *chunks, last = echo_client.completions.create(
            model=MODEL, prompt=["one two", "three"], stream=True, stream_options={"include_usage": True}
        )
        texts = {0: "", 1: ""}
        for chunk in chunks:
            assert chunk.object == "text_completion"
            assert chunk.choices[0].model_fields_set == {"text", "index", "logprobs", "finish_reason"}
            texts[chunk.choices[0].index] += chunk.choices[0].text
        assert texts == {0: "one two", 1: "three"}
        assert sorted(chunk.choices[0].index for chunk in chunks if chunk.choices[0].finish_reason == "stop") == [0, 1]
        assert last.choices == []
        assert last.usage is not None


class TestEmbeddings:
    def test_the_default_encoding_is_decoded_by_the_client(self, echo_client: openai.OpenAI) -> None:
        answer = echo_client.embeddings.create(model=MODEL, input=["one", "two"])
        as_floats = echo_client.embeddings.create(model=MODEL, input=["one", "two"], encoding_format="float")
        assert [item.index for item in answer.data] == [0, 1]
        assert answer.data[0].embedding != answer.data[1].embedding
        for item, other in zip(answer.data, as_floats.data, strict=True):
            assert math.isclose(math.hypot(*item.embedding), 1, abs_tol=1e-6)
            assert item.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0

    def test_base64_is_little_endian_float32(self, echo_client: openai.OpenAI) -> None:
        raw = echo_client.embeddings.create(model=MODEL, input="one", encoding_format="base64", dimensions=8)
        floats = echo_client.embeddings.create(model=MODEL, input="one", encoding_format="float", dimensions=8)
        encoded = raw.data[0].embedding
        assert isinstance(encoded, str), "the client does not decode base64 that was requested explicitly"
        assert list(struct.unpack("<8f", base64.b64decode(encoded))) == pytest.approx(floats.data[0].embedding)

    @pytest.mark.parametrize("given", ["one", ["one"], [1, 2, 3], [[1, 2, 3]]])
    def test_inputs(self, echo_client: openai.OpenAI, given: Any) -> None:
        answer = echo_client.embeddings.create(model=MODEL, input=given, dimensions=12)
        assert [len(item.embedding) for item in answer.data] == [12]


class TestModels:
    def test_list_and_retrieve(self, echo_client: openai.OpenAI) -> None:
        models = list(echo_client.models.list())
        assert [model.id for model in models] == [MODEL]
        described = echo_client.models.retrieve(MODEL).to_dict()
        assert models[0].to_dict().items() <= described.items(), "a single model has the fields of the list and more"
        assert models[0].object == "model"
        assert isinstance(models[0].created, int)
        assert isinstance(models[0].owned_by, str)


class TestOtherClients:
    def test_azure(self, echo_server: LiveServer) -> None:
        with openai.AzureOpenAI(azure_endpoint=echo_server.url, api_key="any", api_version="2024-10-21") as client:
            answer = client.chat.completions.create(model=MODEL, messages=QUESTION)
            chunks = list(client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True))
            vectors = client.embeddings.create(model=MODEL, input="one")
            text = client.completions.create(model=MODEL, prompt="one two")
            assert [model.id for model in client.models.list()] == [MODEL]
        assert answer.choices[0].message.content == TEXT
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
        assert vectors.data[0].embedding
        assert text.choices[0].text == "one two"

    def test_asynchronous(self, echo_server: LiveServer) -> None:
        async def ask() -> tuple[list[str | None], str]:
            async with openai.AsyncOpenAI(base_url=echo_server.base_url, api_key="any", max_retries=0) as client:
                answers = await asyncio.gather(
                    *(client.chat.completions.create(model=MODEL, messages=QUESTION) for _ in range(20))
                )
                stream = await client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)
                text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            return [answer.choices[0].message.content for answer in answers], text

        assert asyncio.run(ask()) == ([TEXT] * 20, TEXT)


class TestErrors:
    """Errors of the server, as exceptions of the client."""

    def test_unknown_model(self, echo_client: openai.OpenAI) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            echo_client.chat.completions.create(model="no-such-model", messages=QUESTION)
        error = caught.value
        assert (error.code, error.type, error.param) == ("model_not_found", "invalid_request_error", "model")
        assert error.request_id
        with pytest.raises(openai.NotFoundError):
            echo_client.models.retrieve("no/such/model")

    def test_bad_payload(self, echo_client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            echo_client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": 3}])  # type: ignore[list-item]
        assert (caught.value.type, caught.value.param) == ("invalid_request_error", "messages[0].content")

    def test_before_a_stream_begins(self, echo_client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            echo_client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True, n=1000)
        assert caught.value.param == "n"

    def test_stream_options_without_a_stream(self, echo_client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            echo_client.chat.completions.create(
                model=MODEL, messages=QUESTION, extra_body={"stream_options": {"include_usage": True}}
            )
        assert caught.value.param == "stream_options"

    def test_an_unsupported_parameter(self, echo_client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            echo_client.chat.completions.create(model=MODEL, messages=QUESTION, logit_bias={"1": 5})
        assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "logit_bias")

    def test_other_endpoints_do_not_exist_without_an_upstream(self, echo_client: openai.OpenAI) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            echo_client.files.list()
        assert caught.value.body == {
            "message": "Invalid URL (GET /v1/files)", "type": "invalid_request_error", "param": None,
            "code": "unknown_url",
        }  # fmt: skip


class TestHeaders:
    def test_request_id(self, echo_client: openai.OpenAI) -> None:
        raw = echo_client.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION)
        assert raw.request_id is not None
        assert raw.request_id.startswith("req_")
        assert raw.parse()._request_id == raw.request_id
        given = echo_client.chat.completions.create(
            model=MODEL, messages=QUESTION, extra_headers={"X-Request-ID": "mine-1"}
        )
        assert given._request_id == "mine-1"

    def test_headers_of_openai(self, echo_client: openai.OpenAI) -> None:
        raw = echo_client.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION)
        assert raw.headers["openai-version"] == "2020-10-01"
        assert int(raw.headers["openai-processing-ms"]) >= 0
        assert raw.headers["content-type"] == "application/json"

    def test_headers_of_a_stream(self, echo_client: openai.OpenAI) -> None:
        with echo_client.chat.completions.with_streaming_response.create(
            model=MODEL, messages=QUESTION, stream=True
        ) as raw:
            body = raw.read()
        assert raw.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert raw.headers["cache-control"] == "no-cache, no-transform"
        assert raw.headers["x-accel-buffering"] == "no"
        assert "content-length" not in raw.headers
        assert body.endswith(b"\n\ndata: [DONE]\n\n")
