"""Schema of the requests to `POST /ask`, the endpoint for browser front ends.

A request has `{"messages": [{"role", "content"}, ...]}`, or the messages that the Vercel AI SDK's `useChat` posts.
Version 4 sends `content` and `parts` (and `id`, `data`, `experimental_attachments`), version 5 and later `parts` alone
(and `id`, `trigger`, `messageId`, `metadata`). The generation options (`temperature`, ...) have OpenAI's names. Other
keys are ignored. Source: `UIMessage` and `DefaultChatTransport` in the npm package `ai`.
"""

from __future__ import annotations

from typing import Any

from .base import RequestSchema, missing_error
from .chat import ContentPartSchema, GenerationSchema
from .fields import AnyObject, Integer, List, Messages, Nested, OneOf, String


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

    role = String(required=True, description="`system`, `user` or `assistant`.", example="user")
    content = OneOf(
        String(),
        List(Nested(ContentPartSchema)),
        description="The message as a text, or as a list of parts.",
        example="Hello!",
    )
    parts = List(Nested(UIPartSchema), description="The message as the AI SDK's `useChat` sends it.")

    def check(self, data: dict[str, Any]) -> None:
        if data.get("content") is None and data.get("parts") is None:
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
