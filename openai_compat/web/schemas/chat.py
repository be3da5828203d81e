"""`POST /v1/chat/completions`: what a request may look like (source: OpenAI's API reference, "Create chat completion").

Types and structure only. Values are for whoever answers: an upstream may know a role, a kind of content part, a
service tier or an effort that this server has never heard of, so every string is accepted where a string belongs.
What the backends of this server rely on is settled here: messages are objects, `role` is a string, `content` is a
text, or a list of parts with a `type` each, or (for the roles below) null. Roles nobody knows pass; a backend that
renders the conversation itself treats them as one more speaker.
"""

from __future__ import annotations

from typing import Any

from .base import FieldError, RequestSchema, missing_error, type_error
from .fields import AnyObject, Boolean, Integer, List, Messages, Nested, Number, OneOf, String

CONTENT_MAY_BE_ABSENT = frozenset({"assistant"})
CONTENT_MAY_BE_NULL = frozenset({"assistant", "function"})
"""An assistant that calls tools says nothing; a function may return nothing (`ChatCompletionFunctionMessageParam`)."""


class ImageURLSchema(RequestSchema):
    url = String(required=True, about="An address, or the image itself as a `data:` URL.")
    detail = String(about="`auto`, `low` or `high`.")


class ContentPartSchema(RequestSchema):
    """One part of a message's content."""

    type = String(required=True, about="`text`, `image_url`, `input_audio`, `file` or `refusal`.", example="text")
    text = String(about="The text of a part of type `text`.", example="What is in this picture?")
    image_url = OneOf(Nested(ImageURLSchema), String(), about="The picture of a part of type `image_url`.")
    input_audio = AnyObject(about="The sound of a part of type `input_audio`: `data` in base64, and its `format`.")
    file = AnyObject(about="The file of a part of type `file`: `file_id`, or `file_data` with `filename`.")
    refusal = String(about="The refusal of a part of type `refusal`.")

    def check(self, data: dict[str, Any]) -> None:
        if data["type"] == "text" and data.get("text") is None:
            raise missing_error("text")


class FunctionCallSchema(RequestSchema):
    name = String(about="The function that was called.")
    arguments = String(about="Its arguments, as JSON in a string.")


class MessageToolCallSchema(RequestSchema):
    id = String(about="What the answer to this call refers to as `tool_call_id`.")
    type = String(about="`function` or `custom`.")
    function = Nested(FunctionCallSchema)
    custom = AnyObject()


class MessageSchema(RequestSchema):
    """One message of a conversation."""

    role = String(
        required=True, about="`developer`, `system`, `user`, `assistant`, `tool` or `function`.", example="user"
    )
    content = OneOf(
        String(),
        List(Nested(ContentPartSchema)),
        about="A text or a list of parts. Only an assistant's message may do without.",
        example="Hello!",
    )
    name = String(about="Tells speakers of the same role apart.")
    tool_calls = List(Nested(MessageToolCallSchema), about="What the assistant called.")
    tool_call_id = String(about="The call that a message of role `tool` answers.")
    function_call = Nested(FunctionCallSchema, about="Deprecated: what the assistant called.")
    refusal = String(about="The assistant's refusal.")
    audio = AnyObject(about="The assistant's earlier spoken answer, by its `id`.")

    def check(self, data: dict[str, Any]) -> None:
        role = data["role"]
        if "content" not in data:
            if role not in CONTENT_MAY_BE_ABSENT:
                raise missing_error("content")
        elif data["content"] is None and role not in CONTENT_MAY_BE_NULL:
            raise type_error("one of a string or array of objects", None).below("content")


class FunctionSchema(RequestSchema):
    """A function that the model may call."""

    name = String(required=True, example="get_weather")
    description = String(example="The weather of a place, now.")
    parameters = AnyObject(
        about="A JSON Schema of the arguments.",
        example={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    )
    strict = Boolean(about="Whether the arguments must follow the schema exactly.")


class NamedSchema(RequestSchema):
    name = String(required=True)


class ToolSchema(RequestSchema):
    """A tool that the model may use."""

    type = String(required=True, about="`function` or `custom`.", example="function")
    function = Nested(FunctionSchema)
    custom = Nested(NamedSchema)

    def check(self, data: dict[str, Any]) -> None:
        if data["type"] == "function" and data.get("function") is None:
            raise missing_error("function")


class JSONSchemaFormatSchema(RequestSchema):
    name = String(required=True, example="answer")
    description = String()
    schema = AnyObject(about="The JSON Schema that the answer must follow.")
    strict = Boolean()


class ResponseFormatSchema(RequestSchema):
    """The form of the answer."""

    type = String(required=True, about="`text`, `json_object` or `json_schema`.", example="json_object")
    json_schema = Nested(JSONSchemaFormatSchema)

    def check(self, data: dict[str, Any]) -> None:
        if data["type"] == "json_schema" and data.get("json_schema") is None:
            raise missing_error("json_schema")


class StreamOptionsSchema(RequestSchema):
    include_usage = Boolean(about="One more chunk before the end has the usage of the whole call.")
    include_obfuscation = Boolean()


class StreamedRequestSchema(RequestSchema):
    """What every request has that can be answered in pieces."""

    model = String(about="The model that answers; the server's default model where absent.", example="mock-gpt-model")
    stream = Boolean(about="Whether the answer comes in pieces, as server-sent events.")
    stream_options = Nested(StreamOptionsSchema, about="Only with `stream: true`.")

    def check(self, data: dict[str, Any]) -> None:
        if data.get("stream_options") is not None and not data.get("stream"):
            raise FieldError("The", " parameter is only allowed when 'stream' is enabled.", None, "stream_options")


class GenerationSchema(RequestSchema):
    """How a model is to write: what all requests for a text share."""

    frequency_penalty = Number(about="-2 to 2: how much repeated tokens are avoided.")
    max_tokens = Integer(about="The most tokens to generate.", example=64)
    presence_penalty = Number(about="-2 to 2: how much tokens are avoided that occurred at all.")
    seed = Integer(about="The same seed, the same answer, as far as the model can.")
    stop = OneOf(String(), List(String()), about="A text, or up to four, at which the answer ends.")
    temperature = Number(about="0 to 2: how freely to choose.", example=0.7)
    top_p = Number(about="0 to 1: choose among the likeliest tokens with this much probability.")


class SamplingSchema(StreamedRequestSchema, GenerationSchema):
    """What chat and text completions share."""

    logit_bias = AnyObject(about="Token ids with a bias from -100 to 100 each.")
    n = Integer(about="How many choices to generate.")
    user = String(about="Your own name for the end user.")


class ChatRequestSchema(SamplingSchema):
    """The body of `POST /v1/chat/completions`."""

    messages = Messages(Nested(MessageSchema), least=1, required=True, about="The conversation so far.")
    audio = AnyObject(about="`voice` and `format` of a spoken answer.")
    function_call = OneOf(String(), Nested(NamedSchema), about="Deprecated: use `tool_choice`.")
    functions = List(Nested(FunctionSchema), about="Deprecated: use `tools`.")
    logprobs = Boolean(about="Whether to return the tokens' log probabilities.")
    max_completion_tokens = Integer(about="The most tokens to generate, reasoning included.")
    metadata = AnyObject(about="Up to 16 texts of your own under names of your own.")
    modalities = List(String(), about="`text`, `audio`.")
    moderation = AnyObject()
    parallel_tool_calls = Boolean(about="Whether several tools may be called at once.")
    prediction = AnyObject(about="What much of the answer will be, where that is known.")
    prompt_cache_key = String()
    prompt_cache_options = AnyObject()
    prompt_cache_retention = String()
    reasoning_effort = String(about="`none`, `minimal`, `low`, `medium`, `high`, ...")
    response_format = Nested(ResponseFormatSchema, about="The form that the answer must have.")
    safety_identifier = String()
    service_tier = String()
    store = Boolean()
    tool_choice = OneOf(String(), AnyObject(), about="`none`, `auto`, `required`, or the tool to call.")
    tools = List(Nested(ToolSchema), about="What the model may call.")
    top_logprobs = Integer(about="0 to 20: how many alternatives to return at each place, with `logprobs`.")
    verbosity = String(about="`low`, `medium` or `high`.")
    web_search_options = AnyObject()


CHAT_REQUEST = ChatRequestSchema()
