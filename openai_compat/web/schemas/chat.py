"""Schema of the requests to `POST /v1/chat/completions` (see OpenAI's API reference, "Create chat completion").

Only types and structure are validated. An upstream may support a role, a type of content part, a service tier or an
effort that this server does not know, so every string is accepted in a string field. The backends can rely on the
following. Messages are objects. `role` is a string. `content` is a text, a list of parts with a `type` each, or, for
the roles below, null. Unknown roles are accepted, and a backend that renders the conversation treats them as speakers.
"""

from __future__ import annotations

from typing import Any

from .base import RequestSchema, missing_error, type_error
from .fields import AnyObject, Boolean, Integer, List, Messages, Nested, Number, OneOf, String

CONTENT_MAY_BE_ABSENT = frozenset({"assistant"})
CONTENT_MAY_BE_NULL = frozenset({"assistant", "function"})
"""An assistant that calls tools sends no text. A function may return none (`ChatCompletionFunctionMessageParam`)."""


class ImageURLSchema(RequestSchema):
    url = String(required=True, description="A URL, or the image itself as a `data:` URL.")
    detail = String(description="`auto`, `low` or `high`.")


class ContentPartSchema(RequestSchema):
    """Part of a message's content."""

    type = String(required=True, description="`text`, `image_url`, `input_audio`, `file` or `refusal`.", example="text")
    text = String(description="The text of a part of type `text`.", example="What is in this picture?")
    image_url = OneOf(Nested(ImageURLSchema), String(), description="The image of a part of type `image_url`.")
    input_audio = AnyObject(
        description="The audio of a part of type `input_audio`: `data` in base64, and its `format`."
    )
    file = AnyObject(description="The file of a part of type `file`: `file_id`, or `file_data` with `filename`.")
    refusal = String(description="The refusal of a part of type `refusal`.")

    def check(self, data: dict[str, Any]) -> None:
        if data["type"] == "text" and data.get("text") is None:
            raise missing_error("text")


class FunctionCallSchema(RequestSchema):
    name = String(description="The function that was called.")
    arguments = String(description="Its arguments as a JSON string.")


class MessageToolCallSchema(RequestSchema):
    id = String(description="The id that the tool's answer repeats as `tool_call_id`.")
    type = String(description="`function` or `custom`.")
    function = Nested(FunctionCallSchema)
    custom = AnyObject()


class MessageSchema(RequestSchema):
    """Message of a conversation."""

    role = String(
        required=True, description="`developer`, `system`, `user`, `assistant`, `tool` or `function`.", example="user"
    )
    content = OneOf(
        String(),
        List(Nested(ContentPartSchema)),
        description="A text or a list of parts. Optional for an assistant's message only.",
        example="Hello!",
    )
    name = String(description="Distinguishes participants with the same role.")
    tool_calls = List(Nested(MessageToolCallSchema), description="The tools that the assistant called.")
    tool_call_id = String(description="The call that a message of role `tool` answers.")
    function_call = Nested(FunctionCallSchema, description="Deprecated: the function that the assistant called.")
    refusal = String(description="The assistant's refusal.")
    audio = AnyObject(description="An earlier audio response of the assistant, by its `id`.")

    def check(self, data: dict[str, Any]) -> None:
        role = data["role"]
        if "content" not in data:
            if role not in CONTENT_MAY_BE_ABSENT:
                raise missing_error("content")
        elif data["content"] is None and role not in CONTENT_MAY_BE_NULL:
            raise type_error("one of a string or array of objects", None).below("content")


class FunctionSchema(RequestSchema):
    """Function that the model may call."""

    name = String(required=True, example="get_weather")
    description = String(example="Get the current weather of a city.")
    parameters = AnyObject(
        description="JSON Schema of the arguments.",
        example={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    )
    strict = Boolean(description="Require the arguments to match the schema exactly.")


class NamedSchema(RequestSchema):
    name = String(required=True)


class ToolSchema(RequestSchema):
    """Tool that the model may use."""

    type = String(required=True, description="`function` or `custom`.", example="function")
    function = Nested(FunctionSchema)
    custom = Nested(NamedSchema)

    def check(self, data: dict[str, Any]) -> None:
        if data["type"] == "function" and data.get("function") is None:
            raise missing_error("function")


class JSONSchemaFormatSchema(RequestSchema):
    name = String(required=True, example="answer")
    description = String()
    schema = AnyObject(description="JSON Schema that the answer must match.")
    strict = Boolean()


class ResponseFormatSchema(RequestSchema):
    """Format of the answer."""

    type = String(required=True, description="`text`, `json_object` or `json_schema`.", example="json_object")
    json_schema = Nested(JSONSchemaFormatSchema)

    def check(self, data: dict[str, Any]) -> None:
        if data["type"] == "json_schema" and data.get("json_schema") is None:
            raise missing_error("json_schema")


class StreamOptionsSchema(RequestSchema):
    include_usage = Boolean(description="Send one more chunk before the end, with the usage of the call.")
    include_obfuscation = Boolean()


class StreamedRequestSchema(RequestSchema):
    """Fields of all requests with an answer that can be streamed."""

    model = String(description="The model. If absent, the server's default model.", example="mock-gpt-model")
    stream = Boolean(description="Stream the answer as server-sent events.")
    stream_options = Nested(StreamOptionsSchema, description="Only with `stream: true`.")


class GenerationSchema(RequestSchema):
    """Generation options of all requests for a text."""

    frequency_penalty = Number(description="-2 to 2: how strongly repeated tokens are avoided.")
    max_tokens = Integer(description="Maximum number of tokens to generate.", example=64)
    presence_penalty = Number(description="-2 to 2: how strongly tokens are avoided that occur in the text so far.")
    seed = Integer(description="Requests with the same seed get the same answer, as far as the model allows.")
    stop = OneOf(String(), List(String()), description="A text, or up to four, at which the answer ends.")
    temperature = Number(description="0 to 2: how random the choice of tokens is.", example=0.7)
    top_p = Number(description="0 to 1: choose among the most likely tokens with this total probability.")


class SamplingSchema(StreamedRequestSchema, GenerationSchema):
    """Fields of chat and text completions."""

    logit_bias = AnyObject(description="Token ids with a bias from -100 to 100 each.")
    n = Integer(description="Number of choices to generate.")
    user = String(description="Your identifier of the end user.")


class ChatRequestSchema(SamplingSchema):
    """Body of `POST /v1/chat/completions`."""

    messages = Messages(Nested(MessageSchema), min_items=1, required=True, description="The conversation so far.")
    audio = AnyObject(description="`voice` and `format` of an audio answer.")
    function_call = OneOf(String(), Nested(NamedSchema), description="Deprecated: use `tool_choice`.")
    functions = List(Nested(FunctionSchema), description="Deprecated: use `tools`.")
    logprobs = Boolean(description="Return the log probabilities of the tokens.")
    max_completion_tokens = Integer(description="Maximum number of tokens to generate, including reasoning.")
    metadata = AnyObject(description="Up to 16 key-value pairs of your own.")
    modalities = List(String(), description="`text`, `audio`.")
    moderation = AnyObject()
    parallel_tool_calls = Boolean(description="Allow several tool calls at once.")
    prediction = AnyObject(description="Text that large parts of the answer will match, if known.")
    prompt_cache_key = String()
    prompt_cache_options = AnyObject()
    prompt_cache_retention = String()
    reasoning_effort = String(description="`none`, `minimal`, `low`, `medium`, `high`, ...")
    response_format = Nested(ResponseFormatSchema, description="The format of the answer.")
    safety_identifier = String()
    service_tier = String()
    store = Boolean()
    tool_choice = OneOf(String(), AnyObject(), description="`none`, `auto`, `required`, or the tool to call.")
    tools = List(Nested(ToolSchema), description="The tools that the model may call.")
    top_logprobs = Integer(
        description="0 to 20: how many alternatives to return at each position. Requires `logprobs`."
    )
    verbosity = String(description="`low`, `medium` or `high`.")
    web_search_options = AnyObject()


CHAT_REQUEST = ChatRequestSchema()
