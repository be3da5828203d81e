"""Schema of the requests to `POST /ask`, the endpoint for browser front ends.

A request has OpenAI's messages (`{"messages": [{"role", "content"}, ...]}`), or those that the Vercel AI SDK's
`useChat` posts. Version 4 sends `content` and `parts` (and `id`, `data`, `experimental_attachments`, in older pages
`toolInvocations`), version 5 and later `parts` alone (and `id`, `trigger`, `messageId`, `metadata`). The generation
options (`temperature`, ...) have OpenAI's names. Other keys are ignored. Source: `UIMessage` and `DefaultChatTransport`
in the npm package `ai`.
"""

from __future__ import annotations

from typing import Any

from .base import RequestSchema, missing_error
from .chat import ContentPartSchema, FunctionCallSchema, GenerationSchema, MessageToolCallSchema
from .fields import AnyObject, Integer, List, Messages, Nested, OneOf, String

SAYING = ("content", "parts", "tool_calls", "function_call", "toolInvocations")
"""Keys of which a message needs one."""


class UIPartSchema(RequestSchema):
    """Part of an AI SDK message."""

    type = String(
        required=True, description="`text`, `file`, `reasoning`, `step-start`, `tool-...`, ...", example="text"
    )
    text = String(description="The text of a part of type `text` or `reasoning`.", example="Hello!")
    url = String(description="The URL of a part of type `file`, often a `data:` URL.")
    mediaType = String(description="The media type of a part of type `file`.")
    filename = String(description="The name of a part of type `file`.")

    def check(self, data: dict[str, Any]) -> None:
        if data["type"] == "text" and data.get("text") is None:
            raise missing_error("text")


class AskMessageSchema(RequestSchema):
    """Message with `content`, `parts` or both."""

    role = String(required=True, description="`system`, `user`, `assistant` or `tool`.", example="user")
    content = OneOf(
        String(),
        List(Nested(ContentPartSchema)),
        description="The message as a text, or as a list of parts.",
        example="Hello!",
    )
    parts = List(Nested(UIPartSchema), description="The message as the AI SDK's `useChat` sends it.")
    tool_calls = List(Nested(MessageToolCallSchema), description="The tools that the assistant called.")
    tool_call_id = String(description="The call that a message of role `tool` answers.")
    function_call = Nested(FunctionCallSchema, description="Deprecated: the function that the assistant called.")
    toolInvocations = List(AnyObject(), description="The tool calls in version 4 of the AI SDK.")

    def check(self, data: dict[str, Any]) -> None:
        if data["role"] != "data" and all(data.get(key) is None for key in SAYING):
            raise missing_error("content")


class GenerationOptionsSchema(GenerationSchema):
    """Generation options that a page may send with the messages."""

    max_completion_tokens = Integer(description="Maximum number of tokens to generate, including reasoning.")
    reasoning_effort = String(description="`none`, `minimal`, `low`, `medium`, `high`, ...")


class AskRequestSchema(GenerationOptionsSchema):
    """Body of `POST /ask`."""

    messages = Messages(Nested(AskMessageSchema), min_items=1, required=True, description="The conversation so far.")
    model = String(description="The model. If absent, the server's default model.", example="mock-gpt-model")
    id = String(description="The conversation's id in the AI SDK.")
    trigger = String(description="The AI SDK's reason for the request: `submit-message` or `regenerate-message`.")
    messageId = String(description="The message that the AI SDK wants to regenerate.")
    metadata = AnyObject()


ASK_REQUEST = AskRequestSchema()
GENERATION_OPTIONS = frozenset(GenerationOptionsSchema().fields)
