"""Schemas of `POST /v1/messages` and of its responses (see Anthropic's API reference, "Create a Message").

Only the types of the fields that every version of the API has are validated, and unknown fields are accepted. Claude
Code repeats a request six times, each time with other features left out, if it gets a 400 for one of them.
`services.messages` checks the blocks and tools where a call is translated.
"""

from __future__ import annotations

from .base import RequestSchema
from .fields import AnyObject, Boolean, Integer, List, Messages, Nested, Number, OneOf, String
from .replies import ReplySchema


class AnthropicMessageSchema(RequestSchema):
    """A message of a conversation in Anthropic's form."""

    role = String(required=True, description="`user`, `assistant` or `system`.", example="user")
    content = OneOf(
        String(),
        List(AnyObject()),
        allow_none=True,
        description="A text or a list of blocks: `text`, `image`, `document`, `tool_use`, `tool_result`, `thinking`. "
        "Required unless the role is `system`.",
        example="Hello!",
    )


class PromptSchema(RequestSchema):
    """Body of `POST /v1/messages/count_tokens`."""

    model = String(description="One of the models. If absent, the default model answers.", example="mock-gpt-model")
    messages = Messages(Nested(AnthropicMessageSchema), required=True, min_items=1)
    system = OneOf(String(), List(AnyObject()), description="Instructions to the model, as a text or as text blocks.")
    tools = List(AnyObject(), description="Tools with `name`, `description` and `input_schema`.")
    tool_choice = AnyObject(description="`{type: auto | any | none}`, or `{type: tool, name}`.")
    thinking = AnyObject(description="`{type: enabled, budget_tokens}` becomes an effort for models that reason.")
    output_config = AnyObject(description="`effort`, and `format` with a JSON schema of the answer.")


class MessagesRequestSchema(PromptSchema):
    """Body of `POST /v1/messages`."""

    max_tokens = Integer(description="Maximum number of tokens to generate, lowered to the model's limit.", example=64)
    stream = Boolean(description="Send the answer as events.")
    stop_sequences = List(String(), description="Texts that end the answer.")
    temperature = Number(description="How random the choice of tokens is.")
    top_p = Number(description="0 to 1: choose among the most likely tokens with this total probability.")
    metadata = AnyObject(description="`user_id`, of which the model's upstream gets a hash.")


class MessageUsageSchema(ReplySchema):
    input_tokens = Integer(required=True, description="Without those read from a cache or written to one.")
    cache_creation_input_tokens = Integer(required=True)
    cache_read_input_tokens = Integer(required=True)
    output_tokens = Integer(required=True)
    output_tokens_details = AnyObject(required=True)


class MessageReplySchema(ReplySchema):
    """Response of `POST /v1/messages`."""

    id = String(required=True)
    type = String(required=True, description="`message`")
    role = String(required=True, description="`assistant`")
    model = String(required=True)
    content = List(AnyObject(), required=True, description="Blocks of type `thinking`, `text` and `tool_use`.")
    stop_reason = String(
        required=True,
        allow_none=True,
        description="`end_turn`, `max_tokens`, `stop_sequence`, `tool_use` or `refusal`.",
    )
    stop_sequence = String(required=True, allow_none=True)
    usage = Nested(MessageUsageSchema, required=True)


class TokenCountSchema(ReplySchema):
    """Response of `POST /v1/messages/count_tokens`."""

    input_tokens = Integer(required=True)


class AnthropicErrorSchema(ReplySchema):
    """Error of the Messages API."""

    type = String(required=True, description="`error`")
    error = AnyObject(required=True, description="`type` and `message`.")
    request_id = String(required=True)


MESSAGES_REQUEST = MessagesRequestSchema()
COUNT_REQUEST = PromptSchema()
