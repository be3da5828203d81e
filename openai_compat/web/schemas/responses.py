"""Schema of the requests to `POST /v1/responses` (see OpenAI's API reference, "Create a model response").

Only the types of the fields are validated here. An upstream that has the endpoint may know items and tools that this
server does not, so `services.responses` checks them where a call is translated.
"""

from __future__ import annotations

from .base import RequestSchema
from .chat import StreamedRequestSchema
from .fields import AnyObject, Boolean, Integer, List, Nested, Number, OneOf, String


class ReasoningSchema(RequestSchema):
    effort = String(description="`none`, `minimal`, `low`, `medium`, `high`, ...")
    summary = String(description="`auto`, `concise` or `detailed`: show the model's reasoning as a summary.")
    generate_summary = String(description="Deprecated: use `summary`.")


class TextSchema(RequestSchema):
    format = AnyObject(
        description="`text`, `json_object`, or `json_schema` with `name` and `schema`.", example={"type": "text"}
    )
    verbosity = String(description="`low`, `medium` or `high`.")


class ResponsesRequestSchema(StreamedRequestSchema):
    """Body of `POST /v1/responses`."""

    input = OneOf(
        String(),
        List(AnyObject()),
        description="A text, or a list of items such as messages, tool calls and their outputs.",
        example="Hello!",
    )
    instructions = String(description="Instructions to the model, which precede the input.")
    background = Boolean(description="Answer at once, and go on without the client, which polls the response.")
    conversation = OneOf(String(), AnyObject(), description="A conversation whose items precede the input.")
    include = List(
        String(), description="Additional output: `message.output_text.logprobs`, `reasoning.encrypted_content`."
    )
    max_output_tokens = Integer(description="Maximum number of tokens to generate, including reasoning.", example=64)
    max_tool_calls = Integer()
    metadata = AnyObject(description="Up to 16 key-value pairs of your own.")
    parallel_tool_calls = Boolean(description="Allow several tool calls at once.")
    previous_response_id = String(description="A response whose conversation the request continues.")
    prompt = AnyObject(description="Only for models whose upstream has the Responses API.")
    prompt_cache_key = String()
    prompt_cache_retention = String()
    reasoning = Nested(ReasoningSchema, description="Options of models that reason.")
    safety_identifier = String()
    service_tier = String()
    store = Boolean(description="Keep the response (default).")
    temperature = Number(description="0 to 2: how random the choice of tokens is.", example=0.7)
    text = Nested(TextSchema, description="The format of the answer.")
    tool_choice = OneOf(String(), AnyObject(), description="`none`, `auto`, `required`, or the tool to call.")
    tools = List(AnyObject(), description="The tools that the model may call.")
    top_logprobs = Integer(description="0 to 20: how many alternatives to return at each position.")
    top_p = Number(description="0 to 1: choose among the most likely tokens with this total probability.")
    truncation = String(description="`auto` or `disabled`.")
    user = String(description="Your identifier of the end user.")


RESPONSES_REQUEST = ResponsesRequestSchema()
