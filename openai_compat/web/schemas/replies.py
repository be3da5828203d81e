"""What the answers look like, for the documentation and for tests (source: OpenAI's API reference).

Upstreams may add fields of their own; those pass through. Fields that may be null are sent as null, never left out.
"""

from __future__ import annotations

from marshmallow import INCLUDE, Schema

from .fields import AnyObject, Integer, List, Nested, Number, OneOf, String

FINISH_REASONS = "`stop`, `length`, `tool_calls`, `content_filter` or `function_call`"


class ReplySchema(Schema):
    """An object in an answer; optional fields are absent or have a value, unless they say otherwise."""

    class Meta:
        unknown = INCLUDE


class PromptTokensDetailsSchema(ReplySchema):
    cached_tokens = Integer(required=True)
    audio_tokens = Integer()


class CompletionTokensDetailsSchema(ReplySchema):
    reasoning_tokens = Integer(required=True)
    audio_tokens = Integer()
    accepted_prediction_tokens = Integer()
    rejected_prediction_tokens = Integer()


class UsageSchema(ReplySchema):
    """What a call cost, in tokens."""

    prompt_tokens = Integer(required=True)
    completion_tokens = Integer(required=True)
    total_tokens = Integer(required=True)
    prompt_tokens_details = Nested(PromptTokensDetailsSchema)
    completion_tokens_details = Nested(CompletionTokensDetailsSchema)


class CalledFunctionSchema(ReplySchema):
    name = String(required=True)
    arguments = String(required=True, about="JSON in a string; it may be invalid, as the model wrote it.")


class ToolCallSchema(ReplySchema):
    id = String(required=True)
    type = String(required=True)
    function = Nested(CalledFunctionSchema)


class TokenLogprobSchema(ReplySchema):
    token = String(required=True)
    logprob = Number(required=True)
    bytes = List(Integer(), required=True, allow_none=True, about="The token in UTF-8.")
    top_logprobs = List(AnyObject(), required=True, about="The likeliest tokens at this place.")


class ChoiceLogprobsSchema(ReplySchema):
    content = List(Nested(TokenLogprobSchema), required=True, allow_none=True)
    refusal = List(Nested(TokenLogprobSchema), required=True, allow_none=True)


class ReplyMessageSchema(ReplySchema):
    role = String(required=True)
    content = String(required=True, allow_none=True, about="Null where tools are called instead.")
    refusal = String(required=True, allow_none=True)
    tool_calls = List(Nested(ToolCallSchema))
    reasoning_content = String(about="The model's reasoning, where a backend shows it; not OpenAI's own.")
    annotations = List(AnyObject(), about="What the text rests on, and where: `url_citation` objects.")


class ChatChoiceSchema(ReplySchema):
    index = Integer(required=True)
    message = Nested(ReplyMessageSchema, required=True)
    logprobs = Nested(ChoiceLogprobsSchema, required=True, allow_none=True)
    finish_reason = String(required=True, about=FINISH_REASONS)


class ChatCompletionSchema(ReplySchema):
    """The answer of `POST /v1/chat/completions`."""

    id = String(required=True)
    object = String(required=True, about="`chat.completion`")
    created = Integer(required=True, about="Unix time in seconds.")
    model = String(required=True)
    choices = List(Nested(ChatChoiceSchema), required=True)
    usage = Nested(UsageSchema)


class ToolCallDeltaSchema(ReplySchema):
    index = Integer(required=True, about="Which call this is a piece of, from 0.")
    id = String(about="With the first piece only.")
    type = String(about="With the first piece only.")
    function = AnyObject(about="`name` with the first piece only, `arguments` piece by piece.")


class DeltaSchema(ReplySchema):
    role = String(about="With the first chunk of each choice only.")
    content = String(allow_none=True)
    refusal = String(allow_none=True)
    tool_calls = List(Nested(ToolCallDeltaSchema))
    reasoning_content = String()
    annotations = List(AnyObject(), about="With the piece of the text that names the sources.")


class ChunkChoiceSchema(ReplySchema):
    index = Integer(required=True)
    delta = Nested(DeltaSchema, required=True)
    logprobs = Nested(ChoiceLogprobsSchema, allow_none=True)
    finish_reason = String(required=True, allow_none=True, about=f"{FINISH_REASONS} with the last chunk, else null.")


class ChatCompletionChunkSchema(ReplySchema):
    """The JSON of one event of a streamed chat; the event after the last is `data: [DONE]`."""

    id = String(required=True)
    object = String(required=True, about="`chat.completion.chunk`")
    created = Integer(required=True)
    model = String(required=True)
    choices = List(Nested(ChunkChoiceSchema), required=True, about="Empty in the chunk that has the usage.")
    usage = Nested(UsageSchema, allow_none=True, about="Only with `stream_options.include_usage`.")


class TextLogprobsSchema(ReplySchema):
    tokens = List(String(), required=True)
    token_logprobs = List(Number(allow_none=True), required=True)
    top_logprobs = List(AnyObject(allow_none=True), required=True, allow_none=True)
    text_offset = List(Integer(), required=True)


class TextChoiceSchema(ReplySchema):
    index = Integer(required=True, about="Counted prompt by prompt.")
    text = String(required=True)
    logprobs = Nested(TextLogprobsSchema, required=True, allow_none=True)
    finish_reason = String(required=True, allow_none=True, about="`stop`, `length` or `content_filter`; else null.")


class CompletionSchema(ReplySchema):
    """The answer of `POST /v1/completions`, and the JSON of each event of a streamed one."""

    id = String(required=True)
    object = String(required=True, about="`text_completion`")
    created = Integer(required=True)
    model = String(required=True)
    choices = List(Nested(TextChoiceSchema), required=True)
    usage = Nested(UsageSchema, allow_none=True)


class EmbeddingSchema(ReplySchema):
    object = String(required=True, about="`embedding`")
    index = Integer(required=True)
    embedding = OneOf(
        List(Number()), String(), required=True, about="Numbers, or base64 of little-endian 32-bit floats."
    )


class EmbeddingsUsageSchema(ReplySchema):
    prompt_tokens = Integer(required=True)
    total_tokens = Integer(required=True)


class EmbeddingsSchema(ReplySchema):
    """The answer of `POST /v1/embeddings`, in the order of the inputs."""

    object = String(required=True, about="`list`")
    data = List(Nested(EmbeddingSchema), required=True)
    model = String(required=True)
    usage = Nested(EmbeddingsUsageSchema, required=True)


class ModelSchema(ReplySchema):
    """One model that this server answers for."""

    id = String(required=True)
    object = String(required=True, about="`model`")
    created = Integer(required=True)
    owned_by = String(required=True)


class ModelListSchema(ReplySchema):
    """All of them."""

    object = String(required=True, about="`list`")
    data = List(Nested(ModelSchema), required=True)


class ErrorDetailSchema(ReplySchema):
    message = String(required=True)
    type = String(required=True)
    param = String(required=True, allow_none=True, about="The dotted path of what is wrong.")
    code = String(required=True, allow_none=True)


class ErrorSchema(ReplySchema):
    """OpenAI's error envelope: all four keys, always."""

    error = Nested(ErrorDetailSchema, required=True)


class AskErrorSchema(ReplySchema):
    """The errors of `POST /ask`, in a form that a chat page can show as a message."""

    role = String(required=True, about="`assistant`")
    content = String(required=True)
    error = String(required=True)
    details = String(required=True)


class AskEventSchema(ReplySchema):
    """The JSON of one event of `POST /ask` in the format `sse`."""

    role = String(required=True, about="`assistant`")
    content = String(required=True)
    finish_reason = String(
        required=True, allow_none=True, about="`stop` with the last event, `error` in case, else null."
    )
    error = String(about="The kind of error, where the answer broke off.")
    details = String(about="What went wrong then.")


class StatusSchema(ReplySchema):
    status = String(required=True)


class HealthcheckSchema(ReplySchema):
    status = String(required=True, about="`healthy`")
    timestamp = String(required=True, about="ISO 8601.")
    service = String(required=True)
