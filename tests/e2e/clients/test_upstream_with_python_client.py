"""The official Python client of a server that forwards to the mock upstream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import openai
import pydantic
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.clients.conftest import UPSTREAM_KEY
from tests.e2e.clients.raw_http import exchange
from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello there"}]
TEXT = "You said: hello there"


class Weather(pydantic.BaseModel):
    """The weather in a city."""

    city: str
    days: int


TOOL = openai.pydantic_function_tool(Weather, name="get_weather")


def warm_up(server: LiveServer, connections: int) -> None:
    """Open at least `connections` idle connections from the server to its upstream."""

    async def ask() -> None:
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            calls = [client.chat.completions.create(model="mock:delay=0.1", messages=HELLO) for _ in range(connections)]
            await asyncio.gather(*calls)

    asyncio.run(ask())


def texts_of(stream: Any) -> list[str]:
    return [choice.delta.content for chunk in stream for choice in chunk.choices if choice.delta.content]


class TestChat:
    def test_complete_answer(self, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(model="mock-model", messages=HELLO)
        assert answer.choices[0].message.content == TEXT
        assert answer.usage is not None
        assert answer.usage.total_tokens == 10

    def test_stream(self, client: openai.OpenAI) -> None:
        stream = client.chat.completions.create(model="mock-model", messages=HELLO, stream=True)
        chunks = list(stream)
        assert texts_of(chunks) == ["You", " said:", " hello", " there"]
        assert all("usage" not in chunk.model_fields_set for chunk in chunks)
        assert all(chunk.choices for chunk in chunks)

    def test_usage_of_a_stream(self, client: openai.OpenAI) -> None:
        *chunks, last = client.chat.completions.create(
            model="mock-model", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        assert all(chunk.usage is None for chunk in chunks)
        assert last.usage is not None
        assert last.usage.completion_tokens == 4

    @pytest.mark.parametrize("name", ["fault-reject-stream-options", "fault-databricks"])
    def test_an_upstream_without_stream_options(self, client: openai.OpenAI, mock: MockUpstream, name: str) -> None:
        """The server adds `stream_options`, and repeats the request without it after an error."""
        assert "".join(texts_of(client.chat.completions.create(model=name, messages=HELLO, stream=True))) == TEXT
        assert mock.stats()["requests_total"] == 2

    def test_tokens_are_forwarded_at_once(self, client: openai.OpenAI, mock: MockUpstream) -> None:
        """The upstream stalls after the role and two tokens, which a buffering server would not forward."""
        with client.chat.completions.create(model="fault-stall:after=3", messages=HELLO, stream=True) as stream:
            chunks = [next(stream) for _ in range(3)]
            assert mock.stats()["requests_open"] == 1
        assert texts_of(chunks) == ["You", " said:"]

    def test_stream_helper(self, client: openai.OpenAI) -> None:
        with client.chat.completions.stream(
            model="mock-model:calls=2", messages=HELLO, tools=[TOOL], tool_choice="required", n=2
        ) as stream:
            final = stream.get_final_completion()
        for choice in final.choices:
            calls = choice.message.tool_calls or []
            assert [call.function.parsed_arguments for call in calls] == [Weather(city="hello there", days=1)] * 2
            assert choice.finish_reason == "tool_calls"

    def test_tools_round_trip(self, client: openai.OpenAI) -> None:
        messages: list[Any] = list(HELLO)
        message = client.chat.completions.parse(model="mock-model", messages=messages, tools=[TOOL]).choices[0].message
        assert message.content is None
        call = (message.tool_calls or [])[0]
        assert call.function.parsed_arguments == Weather(city="hello there", days=1)
        messages += [message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
        answer = client.chat.completions.create(model="mock-model", messages=messages, tools=[TOOL])
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (TEXT, "stop")

    def test_azure_client(self, proxy: LiveServer, mock: MockUpstream) -> None:
        with openai.AzureOpenAI(azure_endpoint=proxy.url, api_key="azure-key", api_version="2024-10-21") as client:
            answer = client.chat.completions.create(model="mock-model", messages=HELLO)
            stream = client.chat.completions.create(model="fault-empty-choices-first", messages=HELLO, stream=True)
            assert "".join(texts_of(stream)) == TEXT
        assert answer.choices[0].message.content == TEXT
        assert {request["headers"]["authorization"] for request in mock.requests()} == {"Bearer azure-key"}

    def test_asynchronous_client(self, proxy: LiveServer, mock: MockUpstream) -> None:
        async def ask_one(client: openai.AsyncOpenAI) -> str:
            stream = await client.chat.completions.create(model="mock-model", messages=HELLO, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        async def ask_many() -> list[str]:
            async with openai.AsyncOpenAI(base_url=proxy.base_url, api_key="any", max_retries=0) as client:
                return await asyncio.gather(*(ask_one(client) for _ in range(30)))

        assert asyncio.run(ask_many()) == [TEXT] * 30
        mock.wait_until(lambda stats: stats["requests_open"] == 0)

    def test_headers(self, client: openai.OpenAI) -> None:
        raw = client.chat.completions.with_raw_response.create(model="mock-model", messages=HELLO)
        assert raw.headers["x-ratelimit-reset-requests"] == "8.64s"
        assert raw.headers["openai-organization"] == "mock-organization"
        assert "set-cookie" not in raw.headers
        assert raw.parse()._request_id == raw.headers["x-request-id"]


class TestOtherEndpoints:
    def test_completions(self, client: openai.OpenAI) -> None:
        answer = client.completions.create(model="mock-model", prompt=["one", "two"], n=2)
        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        stream = client.completions.create(model="mock-model", prompt="one", stream=True)
        assert "".join(chunk.choices[0].text for chunk in stream) == "You said: one"

    def test_embeddings(self, client: openai.OpenAI) -> None:
        decoded = client.embeddings.create(model="mock-embedding", input=["a", "b"], dimensions=8)
        floats = client.embeddings.create(model="m", input=["a", "b"], dimensions=8, encoding_format="float")
        for item, other in zip(decoded.data, floats.data, strict=True):
            assert item.embedding == pytest.approx(other.embedding)

    def test_models(self, client: openai.OpenAI) -> None:
        names = [model.id for model in client.models.list()]
        assert "mock/model-with-slash" in names
        assert client.models.retrieve("mock/model-with-slash").id == "mock/model-with-slash"
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve("no/such/model")
        assert caught.value.code == "model_not_found"


ERRORS: dict[int, tuple[type[openai.APIStatusError], str | None]] = {
    400: (openai.BadRequestError, None),
    401: (openai.AuthenticationError, "invalid_api_key"),
    403: (openai.PermissionDeniedError, "unsupported_country_region_territory"),
    404: (openai.NotFoundError, "model_not_found"),
    409: (openai.ConflictError, None),
    422: (openai.UnprocessableEntityError, None),
    429: (openai.RateLimitError, "rate_limit_exceeded"),
    500: (openai.InternalServerError, None),
    503: (openai.InternalServerError, None),
}


class TestErrors:
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("status", ERRORS)
    def test_each_status_has_its_class(self, client: openai.OpenAI, status: int, stream: bool) -> None:
        kind, code = ERRORS[status]
        with pytest.raises(kind) as caught:
            client.chat.completions.create(model=f"fault-status:code={status}", messages=HELLO, stream=stream)
        assert type(caught.value) is kind
        assert (caught.value.status_code, caught.value.code) == (status, code)
        assert caught.value.type
        assert caught.value.request_id

    def test_an_html_error_page_is_an_error(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="fault-html-error", messages=HELLO)
        assert isinstance(caught.value.body, dict)
        assert "<" not in caught.value.message

    @pytest.mark.parametrize(
        "name", ["fault-cut:after=3", "fault-cut-mid-event:after=3", "fault-reset:after=3", "fault-cut:after=0"]
    )
    def test_a_truncated_stream_raises(self, client: openai.OpenAI, name: str) -> None:
        with pytest.raises(openai.APIError) as caught:
            list(client.chat.completions.create(model=name, messages=HELLO, stream=True))
        assert caught.value.code == "upstream_cut"

    def test_the_tokens_before_the_truncation_arrive(self, client: openai.OpenAI) -> None:
        stream = client.chat.completions.create(model="fault-cut:after=3", messages=HELLO, stream=True)
        assert texts_of([next(stream) for _ in range(3)]) == ["You", " said:"]
        with pytest.raises(openai.APIError):
            next(stream)

    @pytest.mark.parametrize("name", ["fault-truncated-length", "fault-bad-json", "fault-empty"])
    def test_a_truncated_answer_raises(self, client: openai.OpenAI, name: str) -> None:
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model=name, messages=HELLO)
        assert caught.value.status_code == 502

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("name", ["fault-reset-before", "fault-close-before"])
    def test_a_closed_connection_without_an_answer(self, client: openai.OpenAI, name: str, stream: bool) -> None:
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model=name, messages=HELLO, stream=stream)
        assert (caught.value.status_code, caught.value.code) == (502, "upstream_unreachable")

    def test_an_error_event_raises(self, client: openai.OpenAI) -> None:
        stream = client.chat.completions.create(model="fault-error-in-stream:after=2", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError) as caught:
            list(stream)
        assert caught.value.type == "server_error"

    def test_an_empty_error_does_not_raise(self, client: openai.OpenAI) -> None:
        stream = client.chat.completions.create(model="fault-empty-error", messages=HELLO, stream=True)
        assert "".join(texts_of(stream)) == TEXT


class TestRetries:
    """Each retry of the client reaches the upstream, and the server adds none."""

    @pytest.mark.parametrize("header", ["retry_after_ms=1", "retry_after=0.001"])
    def test_a_retry_after_a_rate_limit(self, client: openai.OpenAI, mock: MockUpstream, header: str) -> None:
        model = f"fault-status:code=429,times=1,{header}"
        answer = client.with_options(max_retries=2).chat.completions.create(model=model, messages=HELLO)
        assert answer.choices[0].message.content == TEXT
        assert mock.stats()["models"] == {model: 2}
        counts = [request["headers"]["x-stainless-retry-count"] for request in mock.requests()]
        assert counts == ["0", "1"]

    @pytest.mark.parametrize("status", [408, 409, 500, 503])
    def test_retries_after_other_statuses(self, client: openai.OpenAI, mock: MockUpstream, status: int) -> None:
        model = f"fault-status:code={status},times=2,retry_after_ms=1"
        stream = client.with_options(max_retries=2).chat.completions.create(model=model, messages=HELLO, stream=True)
        assert "".join(texts_of(stream)) == TEXT
        assert mock.stats()["requests_total"] == 3

    def test_as_many_retries_as_the_client_wants(self, client: openai.OpenAI, mock: MockUpstream) -> None:
        with pytest.raises(openai.RateLimitError):
            client.with_options(max_retries=3).chat.completions.create(
                model="fault-status:code=429,retry_after_ms=1", messages=HELLO
            )
        assert mock.stats()["requests_total"] == 4

    @pytest.mark.parametrize("fault", ["fault-status:code=500,should_retry=false", "fault-status:code=400"])
    def test_no_retry_if_the_upstream_forbids_it(self, client: openai.OpenAI, mock: MockUpstream, fault: str) -> None:
        with pytest.raises(openai.APIStatusError):
            client.with_options(max_retries=2).chat.completions.create(model=fault, messages=HELLO)
        assert mock.stats()["requests_total"] == 1

    def test_a_retry_if_the_upstream_requests_it(self, client: openai.OpenAI, mock: MockUpstream) -> None:
        model = "fault-status:code=400,times=1,should_retry=true,retry_after_ms=1"
        client.with_options(max_retries=1).chat.completions.create(model=model, messages=HELLO)
        assert mock.stats()["requests_total"] == 2

    def test_a_request_that_kills_connections_is_repeated_once_at_most(
        self, client: openai.OpenAI, proxy: LiveServer, mock: MockUpstream
    ) -> None:
        """An idle connection may be stale, which allows for one repetition."""
        warm_up(proxy, 8)
        mock.reset()
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model="fault-reset-before", messages=HELLO)
        assert mock.stats()["requests_total"] <= 2


class TestDisconnects:
    @pytest.mark.parametrize("name", ["fault-hang", "fault-hang-headers"])
    @pytest.mark.parametrize("stream", [False, True])
    def test_a_client_timeout_aborts_the_upstream_request(
        self, client: openai.OpenAI, mock: MockUpstream, name: str, stream: bool
    ) -> None:
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.3).chat.completions.create(model=name, messages=HELLO, stream=stream)
        mock.wait_until(lambda stats: stats["requests_aborted"] == 1)
        assert mock.stats()["requests_open"] == 0

    def test_a_client_timeout_between_two_tokens_aborts_the_upstream_request(
        self, client: openai.OpenAI, mock: MockUpstream
    ) -> None:
        stream = client.with_options(timeout=0.3).chat.completions.create(
            model="fault-stall:after=3", messages=HELLO, stream=True
        )
        with pytest.raises(openai.APITimeoutError):
            list(stream)
        mock.wait_until(lambda stats: stats["requests_aborted"] == 1)

    @pytest.mark.parametrize("model", ["fault-stall:after=3", "fault-slow:delay=0.05,chunks=10000"])
    def test_closing_a_stream_aborts_the_upstream_request(
        self, client: openai.OpenAI, mock: MockUpstream, model: str
    ) -> None:
        with client.chat.completions.create(model=model, messages=HELLO, stream=True) as stream:
            next(stream)
        mock.wait_until(lambda stats: stats["requests_aborted"] == 1)

    def test_cancelling_a_task_aborts_the_upstream_request(self, proxy: LiveServer, mock: MockUpstream) -> None:
        async def ask_and_cancel() -> None:
            async with openai.AsyncOpenAI(base_url=proxy.base_url, api_key="any", max_retries=0) as client:
                task = asyncio.create_task(client.chat.completions.create(model="fault-hang", messages=HELLO))
                while not mock.stats()["requests_open"]:
                    await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

        asyncio.run(ask_and_cancel())
        mock.wait_until(lambda stats: stats["requests_aborted"] == 1)

    def test_a_waiting_client_is_not_taken_for_a_disconnected_one(
        self, client: openai.OpenAI, mock: MockUpstream
    ) -> None:
        """The answer takes longer than two intervals of the check for disconnects."""
        answer = client.chat.completions.create(model="mock-model:delay=0.8", messages=HELLO)
        assert answer.choices[0].message.content == TEXT
        assert mock.stats()["requests_aborted"] == 0


class TestModelsFile:
    """A server with a models file and API keys."""

    @pytest.mark.parametrize("key", ["wrong", "key-on", "key-one,"])
    def test_a_wrong_key(self, configured_server: LiveServer, mock: MockUpstream, key: str) -> None:
        with openai.OpenAI(base_url=configured_server.base_url, api_key=key) as client:
            calls: list[Callable[[], object]] = [
                lambda: client.chat.completions.create(model="alias", messages=HELLO),
                lambda: client.chat.completions.create(model="alias", messages=HELLO, stream=True),
                lambda: client.completions.create(model="alias", prompt="x"),
                lambda: client.embeddings.create(model="alias", input="x"),
                lambda: client.models.list(),
                lambda: client.models.retrieve("alias"),
            ]
            for call in calls:
                with pytest.raises(openai.AuthenticationError) as caught:
                    call()
                assert caught.value.code == "invalid_api_key"
                assert key not in caught.value.message
        assert mock.stats()["requests_total"] == 0

    def test_no_key(self, configured_server: LiveServer) -> None:
        answer = exchange(configured_server.url, "GET", "/v1/models", headers={"authorization": ""})
        assert answer.status == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"

    def test_each_key_is_accepted(self, configured_server: LiveServer) -> None:
        for key in ("key-one", "key-two"):
            with openai.OpenAI(base_url=configured_server.base_url, api_key=key) as client:
                assert client.models.list().data
            with openai.AzureOpenAI(azure_endpoint=configured_server.url, api_key=key, api_version="1") as azure:
                assert azure.chat.completions.create(model="alias", messages=HELLO).choices

    def test_an_alias(self, keyed_client: openai.OpenAI, mock: MockUpstream) -> None:
        keyed_client.chat.completions.create(model="alias", messages=HELLO)
        assert mock.stats()["models"] == {"mock/model-with-slash": 1}

    def test_no_client_key_reaches_an_upstream(self, keyed_client: openai.OpenAI, mock: MockUpstream) -> None:
        keyed_client.chat.completions.create(model="alias", messages=HELLO)
        keyed_client.chat.completions.create(model="keyed", messages=HELLO)
        without, with_key = [request["headers"] for request in mock.requests()]
        assert "authorization" not in without
        assert with_key["authorization"] == f"Bearer {UPSTREAM_KEY}"
        assert "key-one" not in json.dumps(mock.requests())

    def test_models(self, keyed_client: openai.OpenAI) -> None:
        names = [model.id for model in keyed_client.models.list()]
        assert names[:6] == ["alias", "team/slow-echo", "refused", "keyed", "down", "chat-only"]
        assert names[6:9] == ["mock-model", "mock/model-with-slash", "mock-embedding"], "the default upstream's"
        model = keyed_client.models.retrieve("team/slow-echo")
        assert (model.id, model.owned_by, model.to_dict()["metadata"]) == ("team/slow-echo", "team", {"tier": "test"})

    def test_an_upstream_that_rejects_the_servers_key(self, keyed_client: openai.OpenAI, mock: MockUpstream) -> None:
        """A 401 would blame the client, and a retry cannot help."""
        with pytest.raises(openai.InternalServerError) as caught:
            keyed_client.with_options(max_retries=2).chat.completions.create(model="refused", messages=HELLO)
        assert (caught.value.status_code, caught.value.code) == (502, "upstream_authentication_failed")
        assert UPSTREAM_KEY not in caught.value.message
        assert mock.stats()["requests_total"] == 1

    def test_an_upstream_that_is_down(self, keyed_client: openai.OpenAI) -> None:
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError) as caught:
                keyed_client.chat.completions.create(model="down", messages=HELLO, stream=stream)
            assert (caught.value.status_code, caught.value.code) == (502, "upstream_unreachable")
            assert "127.0.0.1" not in caught.value.message

    def test_an_unsupported_endpoint_is_called_once(
        self, keyed_client: openai.OpenAI, configured_server: LiveServer
    ) -> None:
        """The client retries a 501 unless `x-should-retry` is false."""
        before = configured_server.log().count("POST /v1/embeddings status=501")
        with pytest.raises(openai.InternalServerError) as caught:
            keyed_client.with_options(max_retries=2).embeddings.create(model="chat-only", input="x")
        assert (caught.value.status_code, caught.value.param) == (501, "model")
        assert configured_server.log().count("POST /v1/embeddings status=501") == before + 1
