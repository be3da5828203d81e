"""Schemas of the responses, for the documentation and for tests (see OpenAI's API reference).

Upstreams may add fields of their own, which are forwarded. Fields that may be null are sent as null, never left out.
"""

from __future__ import annotations

from marshmallow import INCLUDE, Schema

from .fields import AnyObject, Integer, List, Nested, Number, OneOf, String

FINISH_REASONS = "`stop`, `length`, `tool_calls`, `content_filter` or `function_call`"


class ReplySchema(Schema):
    """Schema of an object in a response. Optional fields are absent or not null, unless `allow_none` is set."""

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
    """Token counts of a call."""

    prompt_tokens = Integer(required=True)
    completion_tokens = Integer(required=True)
    total_tokens = Integer(required=True)
    prompt_tokens_details = Nested(PromptTokensDetailsSchema)
    completion_tokens_details = Nested(CompletionTokensDetailsSchema)


class CalledFunctionSchema(ReplySchema):
    name = String(required=True)
    arguments = String(required=True, description="A JSON string as the model wrote it, possibly invalid.")


class ToolCallSchema(ReplySchema):
    id = String(required=True)
    type = String(required=True)
    function = Nested(CalledFunctionSchema)


class TokenLogprobSchema(ReplySchema):
    token = String(required=True)
    logprob = Number(required=True)
    bytes = List(Integer(), required=True, allow_none=True, description="The token in UTF-8.")
    top_logprobs = List(AnyObject(), required=True, description="The most likely tokens at this position.")


class ChoiceLogprobsSchema(ReplySchema):
    content = List(Nested(TokenLogprobSchema), required=True, allow_none=True)
    refusal = List(Nested(TokenLogprobSchema), required=True, allow_none=True)


class ReplyMessageSchema(ReplySchema):
    role = String(required=True)
    content = String(required=True, allow_none=True, description="Null if tools are called instead.")
    refusal = String(required=True, allow_none=True)
    tool_calls = List(Nested(ToolCallSchema))
    reasoning_content = String(
        description="The model's reasoning, if the backend returns it. Not part of OpenAI's API."
    )
    annotations = List(AnyObject(), description="Sources of the text, as `url_citation` objects.")


class ChatChoiceSchema(ReplySchema):
    index = Integer(required=True)
    message = Nested(ReplyMessageSchema, required=True)
    logprobs = Nested(ChoiceLogprobsSchema, required=True, allow_none=True)
    finish_reason = String(required=True, description=FINISH_REASONS)


class ChatCompletionSchema(ReplySchema):
    """Response of `POST /v1/chat/completions`."""

    id = String(required=True)
    object = String(required=True, description="`chat.completion`")
    created = Integer(required=True, description="Unix time in seconds.")
    model = String(required=True)
    choices = List(Nested(ChatChoiceSchema), required=True)
    usage = Nested(UsageSchema)


class ToolCallDeltaSchema(ReplySchema):
    index = Integer(required=True, description="Index of the tool call that this delta belongs to, from 0.")
    id = String(description="In the first delta only.")
    type = String(description="In the first delta only.")
    function = AnyObject(description="`name` in the first delta only, and the next part of `arguments`.")


class DeltaSchema(ReplySchema):
    role = String(description="In the first chunk of each choice only.")
    content = String(allow_none=True)
    refusal = String(allow_none=True)
    tool_calls = List(Nested(ToolCallDeltaSchema))
    reasoning_content = String()
    annotations = List(AnyObject(), description="Sources of the text, in the chunk with the text that cites them.")


class ChunkChoiceSchema(ReplySchema):
    index = Integer(required=True)
    delta = Nested(DeltaSchema, required=True)
    logprobs = Nested(ChoiceLogprobsSchema, allow_none=True)
    finish_reason = String(
        required=True, allow_none=True, description=f"{FINISH_REASONS} in the last chunk, else null."
    )


class ChatCompletionChunkSchema(ReplySchema):
    """JSON of one event of a streamed chat. The stream ends with the event `data: [DONE]`."""

    id = String(required=True)
    object = String(required=True, description="`chat.completion.chunk`")
    created = Integer(required=True)
    model = String(required=True)
    choices = List(Nested(ChunkChoiceSchema), required=True, description="Empty in the chunk with the usage.")
    usage = Nested(UsageSchema, allow_none=True, description="Only with `stream_options.include_usage`.")


class ResponsesUsageSchema(ReplySchema):
    input_tokens = Integer(required=True)
    input_tokens_details = AnyObject(required=True)
    output_tokens = Integer(required=True)
    output_tokens_details = AnyObject(required=True)
    total_tokens = Integer(required=True)


class ResponseSchema(ReplySchema):
    """Response of `POST /v1/responses`. It also repeats the parameters of the request."""

    id = String(required=True)
    object = String(required=True, description="`response`")
    created_at = Integer(required=True, description="Unix time in seconds.")
    status = String(required=True, description="`completed`, `incomplete`, `failed` or `in_progress`.")
    error = AnyObject(required=True, allow_none=True, description="`code` and `message` of a failed response.")
    incomplete_details = AnyObject(required=True, allow_none=True, description="The `reason`, a limit or a filter.")
    model = String(required=True)
    output = List(AnyObject(), required=True, description="Messages, reasoning and tool calls.")
    usage = Nested(ResponsesUsageSchema, required=True, allow_none=True)


class TextLogprobsSchema(ReplySchema):
    tokens = List(String(), required=True)
    token_logprobs = List(Number(allow_none=True), required=True)
    top_logprobs = List(AnyObject(allow_none=True), required=True, allow_none=True)
    text_offset = List(Integer(), required=True)


class TextChoiceSchema(ReplySchema):
    index = Integer(required=True, description="Index over all choices of all prompts.")
    text = String(required=True)
    logprobs = Nested(TextLogprobsSchema, required=True, allow_none=True)
    finish_reason = String(
        required=True, allow_none=True, description="`stop`, `length` or `content_filter` at the end, else null."
    )


class CompletionSchema(ReplySchema):
    """Response of `POST /v1/completions`, and the JSON of each event if it is streamed."""

    id = String(required=True)
    object = String(required=True, description="`text_completion`")
    created = Integer(required=True)
    model = String(required=True)
    choices = List(Nested(TextChoiceSchema), required=True)
    usage = Nested(UsageSchema, allow_none=True)


class EmbeddingSchema(ReplySchema):
    object = String(required=True, description="`embedding`")
    index = Integer(required=True)
    embedding = OneOf(
        List(Number()),
        String(),
        required=True,
        description="A list of numbers, or little-endian 32-bit floats in base64.",
    )


class EmbeddingsUsageSchema(ReplySchema):
    prompt_tokens = Integer(required=True)
    total_tokens = Integer(required=True)


class EmbeddingsSchema(ReplySchema):
    """Response of `POST /v1/embeddings`, in the order of the inputs."""

    object = String(required=True, description="`list`")
    data = List(Nested(EmbeddingSchema), required=True)
    model = String(required=True)
    usage = Nested(EmbeddingsUsageSchema, required=True)


class ModelSchema(ReplySchema):
    """Model of this server."""

    id = String(required=True)
    object = String(required=True, description="`model`")
    created = Integer(required=True)
    owned_by = String(required=True)


class ModelListSchema(ReplySchema):
    """List of all models."""

    object = String(required=True, description="`list`")
    data = List(Nested(ModelSchema), required=True)


class ErrorDetailSchema(ReplySchema):
    message = String(required=True)
    type = String(required=True)
    param = String(required=True, allow_none=True, description="The dotted path of the invalid parameter.")
    code = String(required=True, allow_none=True)


class ErrorSchema(ReplySchema):
    """OpenAI's error envelope, always with all four keys."""

    error = Nested(ErrorDetailSchema, required=True)


class AskErrorSchema(ReplySchema):
    """Error of `POST /ask`, which a chat page can show as a message."""

    role = String(required=True, description="`assistant`")
    content = String(required=True)
    error = String(required=True)
    details = String(required=True)


class AskEventSchema(ReplySchema):
    """JSON of one event of `POST /ask` in the format `sse`."""

    role = String(required=True, description="`assistant`")
    content = String(required=True)
    finish_reason = String(
        required=True, allow_none=True, description="`stop` in the last event, or `error` after a failure, else null."
    )
    error = String(description="The type of the error, if the answer was interrupted.")
    details = String(description="The message of that error.")


class StatusSchema(ReplySchema):
    status = String(required=True)


class HealthcheckSchema(ReplySchema):
    status = String(required=True, description="`healthy`")
    timestamp = String(required=True, description="ISO 8601.")
    service = String(required=True)
