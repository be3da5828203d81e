"""`POST /ask`: what a browser front end may send.

Either `{"messages": [{"role", "content"}, ...]}`, or what the Vercel AI SDK's `useChat` posts: version 4 sends
`content` and `parts` (and `id`, `data`, `experimental_attachments`), version 5 and later `parts` alone (and `id`,
`trigger`, `messageId`, `metadata`). Beside them a page may say how the model is to write (`temperature`, ...), in
OpenAI's words; other keys are the page's own, and ignored. Source: `UIMessage` and `DefaultChatTransport` in the npm
package `ai`.
"""

from __future__ import annotations

from typing import Any

from .base import RequestSchema, missing_error
from .chat import ContentPartSchema, GenerationSchema
from .fields import AnyObject, Integer, List, Messages, Nested, OneOf, String


class UIPartSchema(RequestSchema):
    """One part of a message of the AI SDK."""

    type = String(required=True, about="`text`, `file`, `reasoning`, `step-start`, `tool-...`, ...", example="text")
    text = String(about="The text of a part of type `text` or `reasoning`.", example="Hello!")
    url = String(about="The address of a part of type `file`, often a `data:` URL.")
    mediaType = String(about="The media type of a part of type `file`.")
    filename = String(about="The name of a part of type `file`.")

    def check(self, data: dict[str, Any]) -> None:
        if data["type"] == "text" and data.get("text") is None:
            raise missing_error("text")


class AskMessageSchema(RequestSchema):
    """One message: `content`, or `parts`, or both."""

    role = String(required=True, about="`system`, `user` or `assistant`.", example="user")
    content = OneOf(String(), List(Nested(ContentPartSchema)), about="What was said.", example="Hello!")
    parts = List(Nested(UIPartSchema), about="What was said, as the AI SDK's `useChat` sends it.")

    def check(self, data: dict[str, Any]) -> None:
        if data.get("content") is None and data.get("parts") is None:
            raise missing_error("content")


class GenerationOptionsSchema(GenerationSchema):
    """What a model is told beside the messages."""

    max_completion_tokens = Integer(about="The most tokens to generate, reasoning included.")
    reasoning_effort = String(about="`none`, `minimal`, `low`, `medium`, `high`, ...")


class AskRequestSchema(GenerationOptionsSchema):
    """The body of `POST /ask`."""

    messages = Messages(Nested(AskMessageSchema), least=1, required=True, about="The conversation so far.")
    model = String(about="The model that answers; the server's default model where absent.", example="mock-gpt-model")
    id = String(about="The AI SDK's name for the conversation.")
    trigger = String(about="Why the AI SDK sends it: `submit-message` or `regenerate-message`.")
    messageId = String(about="The message that the AI SDK wants anew.")
    metadata = AnyObject()


ASK_REQUEST = AskRequestSchema()
GENERATION_OPTIONS = frozenset(GenerationOptionsSchema().fields)
