"""Marshmallow schemas of the models file.

They check keys, types and ranges. `model_parser` checks what depends on the environment, the settings or other models.
`json_schema` renders the same schemas for editors.
"""

from __future__ import annotations

import re
from dataclasses import fields as dataclass_fields
from typing import Any, ClassVar, Final

from marshmallow import fields
from marshmallow.validate import NoneOf, Regexp

from openai_compat.backends.base import Backend
from openai_compat.core.hooks import Hooks
from openai_compat.core.profiles import EMULATIONS

from .fields import (
    Names,
    Shorthand,
    Switch,
    Table,
    Text,
    Weights,
    Word,
    about,
    number,
    option_fields,
    text,
    whole_number,
)
from .strict_schema import StrictSchema

MAX_RETRIES: Final = 3
"""An upstream that has failed four times within moments fails the fifth time too."""
REQUIRED_PARAMETERS: Final = ("model", "messages", "prompt", "input", "stream")
IS_NAME: Final = Regexp(r"[\w.-]+\Z", re.ASCII, error="must be a name")
PREFILLS: Final = ("message", "prefix", "continue_final_message")


class TimeoutSchema(StrictSchema):
    """Limits on one call."""

    connect = number("Limit on connecting.")
    first_byte = number("Limit on the wait until the headers of the response are complete.")
    first_token = number("Limit on the wait for the first content of a stream.")
    idle = number("Limit on each pause within the response.")
    total = number("Limit on the complete call.")


class CooldownSchema(StrictSchema):
    """Circuit breaker of an upstream."""

    renamed: ClassVar = {"faults": "failure_threshold"}

    seconds = number("How long the circuit stays open.", attribute="cooldown")
    failure_threshold = whole_number("Failures in a row that open the circuit.", "must be a whole number, 1 or more", 1)


class TargetSchema(StrictSchema):
    """Target of an alias."""

    model = text("Name of a model.", required=True)
    weight = number("Share of the calls, 1 by default.", "must be a number, 0 or more")


class RouteSchema(StrictSchema):
    """Routing. The keys are the fields of `RoutePolicy`."""

    renamed: ClassVar = {
        "balance": "strategy",
        "longest_wait": "max_retry_wait",
        "context_fallback": "context_overflow",
        "midstream": "on_stream_break",
    }

    fallbacks = Names(Text(), metadata=about("Models that answer when this one fails, in this order."))
    targets = Weights(
        Shorthand(TargetSchema, "model"), metadata=about("Makes the model an alias: these models share its calls.")
    )
    strategy = Word(
        "How `targets` share the calls.",
        "weighted",
        "least_latency",
        also={"weight": "weighted", "latency": "least_latency"},
    )
    retries = whole_number(
        "Further tries at the same upstream.", f"must be a whole number from 0 to {MAX_RETRIES}", 0, MAX_RETRIES
    )
    max_retry_wait = number("Longest wait between two tries, in seconds.")
    cooldown = Shorthand(CooldownSchema, "seconds", "Seconds for which the circuit of a failing upstream stays open.")
    context_overflow = Word('Which fallbacks are asked after "context length exceeded".', "larger", "always")
    on_stream_break = Word("What follows a break in the middle of a stream.", "error", "continue")


class ProfileSchema(StrictSchema):
    """Capability profile. The keys are the fields of `Profile`, and `extends`."""

    renamed: ClassVar = {"rebuild": "translate_responses"}

    extends = text(
        "Name of the profile that this one adds to.",
        error_messages={"invalid": "must be the name of a profile, or a mapping"},
    )
    drop = fields.List(
        fields.String(
            validate=[IS_NAME, NoneOf(REQUIRED_PARAMETERS, error="cannot be what every request consists of")]
        ),
        metadata=about("Parameters that the upstream does not get."),
    )
    rename = fields.Dict(
        fields.String(validate=IS_NAME),
        fields.String(validate=IS_NAME),
        metadata=about("Parameters for which the upstream has another name."),
    )
    emulate = fields.List(
        Word("", *EMULATIONS), metadata=about("Parameters that this server honours in the upstream's place.")
    )
    roles = fields.Dict(
        fields.String(validate=IS_NAME),
        fields.String(validate=IS_NAME),
        metadata=about("Roles of messages for which the upstream has another name."),
    )
    translate_responses = Switch(metadata=about("Whether chat responses are parsed and written anew."))
    strict = Switch(metadata=about("Whether a request is refused instead of adapted."))


HooksSchema = StrictSchema.from_dict(
    {hook.name: text("`package.module:function`") for hook in dataclass_fields(Hooks) if hook.name != "paths"}
)


def dollars(description: str) -> fields.Float:
    """Return a field for an amount of money."""
    return number(description, "must be an amount in dollars, 0 or more")


class PriceSchema(StrictSchema):
    """Prices in dollars."""

    input = dollars("A million input tokens.")
    cached_input = dollars("A million input tokens that the upstream had in its cache. Like `input` by default.")
    cache_write = dollars("A million input tokens that the upstream wrote to its cache. Like `input` by default.")
    output = dollars("A million output tokens.")
    request = dollars("One request.")


class AliasSchema(RouteSchema):
    """Model that shares its calls among targets."""

    unknown_key = "has targets, so the key '{key}' belongs to them"

    name = text("What clients call the model. May contain `/`.", required=True)
    owned_by = text("Shown in the list of models.")
    created = whole_number("Shown in the list of models, in Unix seconds.", "must be a time in Unix seconds")
    metadata = Table(metadata=about("Shown by `GET /v1/models/{id}`."))


class ModelSchema(AliasSchema):
    """Model of any kind, with the keys that all kinds share."""

    renamed: ClassVar = {**RouteSchema.renamed, "prefill": "assistant_prefill"}
    unknown_key = StrictSchema.unknown_key

    kind = text("A built-in kind, or `package.module:Class`.")
    base_url = text("Root of the API. `${NAME}` and `${NAME:-default}` are variables of the environment.")
    upstream_model = text("What the upstream calls the model.")
    api_key_env = text("Variable of the environment that holds the API key.")
    headers = Table(
        metadata=about("Sent with every call. `${NAME}` and `${NAME:-default}` are variables of the environment.")
    )
    timeout = Shorthand(TimeoutSchema, "total", "Seconds for the complete call, or a mapping of limits.")
    max_concurrent = whole_number(
        "Calls under way at once, in one worker.", "must be a number of calls, 0 for no limit"
    )
    context_window = whole_number("Tokens that the model takes.", "must be a number of tokens, 1 or more", 1)
    price = fields.Nested(PriceSchema, metadata=about("What calls cost, for budgets and reports."))
    max_output_tokens = whole_number("Tokens of one answer.", "must be a number of tokens, 1 or more", 1)
    assistant_prefill = Word(
        "How the model continues an answer that has begun.", *PREFILLS, also={True: "message", False: None}
    )
    tools = Word(
        "What becomes of the tools of a call: `prompt` emulates them by the prompt, and `drop` leaves them out.",
        "drop",
        "prompt",
    )
    response_format = Word("`prompt` emulates structured output by the prompt.", "prompt")
    profile = Shorthand(ProfileSchema, "extends", "Parameters that the upstream does not take as OpenAI does.")
    hooks = fields.Nested(HooksSchema, metadata=about("Functions that change requests and answers."))


ROUTE_KEYS: Final = frozenset(RouteSchema().fields)
COMMON_KEYS: Final = frozenset(ModelSchema().fields)


def schema_of(backend_class: type[Backend]) -> StrictSchema:
    """Return the schema of a kind, with the common keys and the fields of its `Options`."""
    own = {key: field for key, field in option_fields(backend_class.Options).items() if key not in COMMON_KEYS}
    schema: type[Any] = ModelSchema.from_dict(own)
    return schema()  # type: ignore[no-any-return]
