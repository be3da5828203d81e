"""The Responses API with the OpenAI Agents SDK, LangChain and pydantic-ai, each of which uses a tool.

They bring fifty packages, so that only `make test-extras` installs them.
"""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from tests.support.live_server import LiveServer
from tests.support.tools import require_extra

pytestmark = require_extra("clients")

MODEL, ANSWER, QUESTION = "mock-gpt-model", "It is sunny.", "Call get_weather for Rome"


def get_weather(city: str) -> str:
    """Return the weather of a city."""
    assert city
    return ANSWER


def test_the_agents_sdk(echo_server: LiveServer) -> None:
    agents = pytest.importorskip("agents")
    agents.set_tracing_disabled(True)

    async def run() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=echo_server.base_url, api_key="any", max_retries=0) as client:
            model = agents.OpenAIResponsesModel(model=MODEL, openai_client=client)
            tools = [agents.function_tool(get_weather)]
            agent = agents.Agent(name="a", instructions="Be brief.", model=model, tools=tools)
            complete = await agents.Runner.run(agent, QUESTION)
            streamed = agents.Runner.run_streamed(agent, QUESTION)
            async for _ in streamed.stream_events():
                pass
            return complete.final_output, streamed.final_output

    assert asyncio.run(run()) == (ANSWER, ANSWER)


def test_a_conversation_of_the_agents_sdk(echo_server: LiveServer) -> None:
    agents = pytest.importorskip("agents")
    agents.set_tracing_disabled(True)

    async def run() -> tuple[str, list[Any]]:
        async with openai.AsyncOpenAI(base_url=echo_server.base_url, api_key="any", max_retries=0) as client:
            model = agents.OpenAIResponsesModel(model=MODEL, openai_client=client)
            agent = agents.Agent(name="a", model=model)
            session = agents.OpenAIConversationsSession(openai_client=client)
            await agents.Runner.run(agent, "one", session=session)
            second = await agents.Runner.run(agent, "two", session=session)
            return second.final_output, await session.get_items()

    output, items = asyncio.run(run())
    assert (output, len(items)) == ("two", 4)


def test_langchain(echo_server: LiveServer) -> None:
    langchain = pytest.importorskip("langchain_openai")
    messages = pytest.importorskip("langchain_core.messages")
    chat = langchain.ChatOpenAI(
        model=MODEL, base_url=echo_server.base_url, api_key="any", max_retries=0, use_responses_api=True
    )
    assert chat.invoke("Hello there").text == "Hello there"
    chunks = list(chat.stream("one two three"))
    assert "".join(chunk.text for chunk in chunks) == "one two three"
    first = chat.invoke("Hello there")
    again = chat.invoke("again", previous_response_id=first.response_metadata["id"])
    assert again.text == "again"
    call = chat.bind_tools([get_weather], tool_choice="get_weather").invoke(QUESTION)
    result = messages.ToolMessage(ANSWER, tool_call_id=call.tool_calls[0]["id"])
    assert chat.bind_tools([get_weather]).invoke([messages.HumanMessage(QUESTION), call, result]).text == ANSWER


def test_pydantic_ai(echo_server: LiveServer) -> None:
    pydantic_ai = pytest.importorskip("pydantic_ai")
    models: Any = pytest.importorskip("pydantic_ai.models.openai")
    providers: Any = pytest.importorskip("pydantic_ai.providers.openai")

    async def run() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=echo_server.base_url, api_key="any", max_retries=0) as client:
            model = models.OpenAIResponsesModel(MODEL, provider=providers.OpenAIProvider(openai_client=client))
            agent = pydantic_ai.Agent(model, instructions="Be brief.", tools=[get_weather])
            complete = await agent.run(QUESTION)
            async with pydantic_ai.Agent(model).run_stream("one two three") as stream:
                return complete.output, "".join([text async for text in stream.stream_text(delta=True)])

    assert asyncio.run(run()) == (ANSWER, "one two three")
