"""What the answers look like, for the documentation and for tests (source: OpenAI's API reference).

Upstreams may add fields of their own; those pass through. Fields that may be null are sent as null, never left out.
"""

from __future__ import annotations

from marshmallow import INCLUDE, Schema

from .fields import AnyObject, ArrayOf, Number, ObjectOf, OneOf, Text, Whole

FINISH_REASONS = "`stop`, `length`, `tool_calls`, `content_filter` or `function_call`"


class ReplySchema(Schema):
    """An object in an answer; optional fields are absent or have a value, unless they say otherwise."""

    class Meta:
        unknown = INCLUDE


class PromptTokensDetailsSchema(ReplySchema):
    cached_tokens = Whole(required=True)
    audio_tokens = Whole()


class CompletionTokensDetailsSchema(ReplySchema):
    reasoning_tokens = Whole(required=True)
    audio_tokens = Whole()
    accepted_prediction_tokens = Whole()
    rejected_prediction_tokens = Whole()


class UsageSchema(ReplySchema):
    """What a call cost, in tokens."""

    prompt_tokens = Whole(required=True)
    completion_tokens = Whole(required=True)
    total_tokens = Whole(required=True)
    prompt_tokens_details = ObjectOf(PromptTokensDetailsSchema)
    completion_tokens_details = ObjectOf(CompletionTokensDetailsSchema)


class CalledFunctionSchema(ReplySchema):
    name = Text(required=True)
    arguments = Text(required=True, about="JSON in a string; it may be invalid, as the model wrote it.")


class ToolCallSchema(ReplySchema):
    id = Text(required=True)
    type = Text(required=True)
    function = ObjectOf(CalledFunctionSchema)


class TokenLogprobSchema(ReplySchema):
    token = Text(required=True)
    logprob = Number(required=True)
    bytes = ArrayOf(Whole(), required=True, allow_none=True, about="The token in UTF-8.")
    top_logprobs = ArrayOf(AnyObject(), required=True, about="The likeliest tokens at this place.")


class ChoiceLogprobsSchema(ReplySchema):
    content = ArrayOf(ObjectOf(TokenLogprobSchema), required=True, allow_none=True)
    refusal = ArrayOf(ObjectOf(TokenLogprobSchema), required=True, allow_none=True)


class ReplyMessageSchema(ReplySchema):
    role = Text(required=True)
    content = Text(required=True, allow_none=True, about="Null where tools are called instead.")
    refusal = Text(required=True, allow_none=True)
    tool_calls = ArrayOf(ObjectOf(ToolCallSchema))
    reasoning_content = Text(about="The model's reasoning, where a backend shows it; not OpenAI's own.")
    annotations = ArrayOf(AnyObject(), about="What the text rests on, and where: `url_citation` objects.")


class ChatChoiceSchema(ReplySchema):
    index = Whole(required=True)
    message = ObjectOf(ReplyMessageSchema, required=True)
    logprobs = ObjectOf(ChoiceLogprobsSchema, required=True, allow_none=True)
    finish_reason = Text(required=True, about=FINISH_REASONS)


class ChatCompletionSchema(ReplySchema):
    """The answer of `POST /v1/chat/completions`."""

    id = Text(required=True)
    object = Text(required=True, about="`chat.completion`")
    created = Whole(required=True, about="Unix time in seconds.")
    model = Text(required=True)
    choices = ArrayOf(ObjectOf(ChatChoiceSchema), required=True)
    usage = ObjectOf(UsageSchema)


class ToolCallDeltaSchema(ReplySchema):
    index = Whole(required=True, about="Which call this is a piece of, from 0.")
    id = Text(about="With the first piece only.")
    type = Text(about="With the first piece only.")
    function = AnyObject(about="`name` with the first piece only, `arguments` piece by piece.")


class DeltaSchema(ReplySchema):
    role = Text(about="With the first chunk of each choice only.")
    content = Text(allow_none=True)
    refusal = Text(allow_none=True)
    tool_calls = ArrayOf(ObjectOf(ToolCallDeltaSchema))
    reasoning_content = Text()
    annotations = ArrayOf(AnyObject(), about="With the piece of the text that names the sources.")


class ChunkChoiceSchema(ReplySchema):
    index = Whole(required=True)
    delta = ObjectOf(DeltaSchema, required=True)
    logprobs = ObjectOf(ChoiceLogprobsSchema, allow_none=True)
    finish_reason = Text(required=True, allow_none=True, about=f"{FINISH_REASONS} with the last chunk, else null.")


class ChatCompletionChunkSchema(ReplySchema):
    """The JSON of one event of a streamed chat; the event after the last is `data: [DONE]`."""

    id = Text(required=True)
    object = Text(required=True, about="`chat.completion.chunk`")
    created = Whole(required=True)
    model = Text(required=True)
    choices = ArrayOf(ObjectOf(ChunkChoiceSchema), required=True, about="Empty in the chunk that has the usage.")
    usage = ObjectOf(UsageSchema, allow_none=True, about="Only with `stream_options.include_usage`.")


class TextLogprobsSchema(ReplySchema):
    tokens = ArrayOf(Text(), required=True)
    token_logprobs = ArrayOf(Number(allow_none=True), required=True)
    top_logprobs = ArrayOf(AnyObject(allow_none=True), required=True, allow_none=True)
    text_offset = ArrayOf(Whole(), required=True)


class TextChoiceSchema(ReplySchema):
    index = Whole(required=True, about="Counted prompt by prompt.")
    text = Text(required=True)
    logprobs = ObjectOf(TextLogprobsSchema, required=True, allow_none=True)
    finish_reason = Text(required=True, allow_none=True, about="`stop`, `length` or `content_filter`; else null.")


class CompletionSchema(ReplySchema):
    """The answer of `POST /v1/completions`, and the JSON of each event of a streamed one."""

    id = Text(required=True)
    object = Text(required=True, about="`text_completion`")
    created = Whole(required=True)
    model = Text(required=True)
    choices = ArrayOf(ObjectOf(TextChoiceSchema), required=True)
    usage = ObjectOf(UsageSchema, allow_none=True)


class EmbeddingSchema(ReplySchema):
    object = Text(required=True, about="`embedding`")
    index = Whole(required=True)
    embedding = OneOf(
        ArrayOf(Number()), Text(), required=True, about="Numbers, or base64 of little-endian 32-bit floats."
    )


class EmbeddingsUsageSchema(ReplySchema):
    prompt_tokens = Whole(required=True)
    total_tokens = Whole(required=True)


class EmbeddingsSchema(ReplySchema):
    """The answer of `POST /v1/embeddings`, in the order of the inputs."""

    object = Text(required=True, about="`list`")
    data = ArrayOf(ObjectOf(EmbeddingSchema), required=True)
    model = Text(required=True)
    usage = ObjectOf(EmbeddingsUsageSchema, required=True)


class ModelSchema(ReplySchema):
    """One model that this server answers for."""

    id = Text(required=True)
    object = Text(required=True, about="`model`")
    created = Whole(required=True)
    owned_by = Text(required=True)


class ModelListSchema(ReplySchema):
    """All of them."""

    object = Text(required=True, about="`list`")
    data = ArrayOf(ObjectOf(ModelSchema), required=True)


class ErrorDetailSchema(ReplySchema):
    message = Text(required=True)
    type = Text(required=True)
    param = Text(required=True, allow_none=True, about="The dotted path of what is wrong.")
    code = Text(required=True, allow_none=True)


class ErrorSchema(ReplySchema):
    """OpenAI's error envelope: all four keys, always."""

    error = ObjectOf(ErrorDetailSchema, required=True)


class AskErrorSchema(ReplySchema):
    """The errors of `POST /ask`, in a form that a chat page can show as a message."""

    role = Text(required=True, about="`assistant`")
    content = Text(required=True)
    error = Text(required=True)
    details = Text(required=True)


class AskEventSchema(ReplySchema):
    """The JSON of one event of `POST /ask` in the format `sse`."""

    role = Text(required=True, about="`assistant`")
    content = Text(required=True)
    finish_reason = Text(
        required=True, allow_none=True, about="`stop` with the last event, `error` in case, else null."
    )
    error = Text(about="The kind of error, where the answer broke off.")
    details = Text(about="What went wrong then.")


class StatusSchema(ReplySchema):
    status = Text(required=True)


class HealthcheckSchema(ReplySchema):
    status = Text(required=True, about="`healthy`")
    timestamp = Text(required=True, about="ISO 8601.")
    service = Text(required=True)
