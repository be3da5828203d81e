"""Calls of tools that a local model makes of its own accord, token by token."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tests.support.tiny_models import byte_tokenizer
from tests.support.tools import require_extra

pytestmark = require_extra("local")

from openai_compat.core.errors import InvalidRequestError  # noqa: E402
from openai_compat.sidecars.huggingface.models.detokenizer import Detokenizer  # noqa: E402
from openai_compat.sidecars.huggingface.models.structured_output import ConstraintFactory  # noqa: E402
from openai_compat.sidecars.huggingface.models.tool_constraint import (  # noqa: E402
    ToolCallConstraint,
    to_choice_constraint,
    to_tool_call_constraint,
)
from openai_compat.sidecars.huggingface.models.tool_formats import (  # noqa: E402
    BARE,
    HERMES,
    MISTRAL,
    ToolCallParser,
    ToolFormat,
)

ARGUMENTS = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": ARGUMENTS}}]


def merging_tokenizer() -> Any:
    """Return a tokenizer in which one token ends the mark and begins the call."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: token for token, text in enumerate([*letters, ">{", '>{"'])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[(">", "{"), (">{", '"')]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")


def start(tokenizer: Any, format_: Any = HERMES, tools: Any = TOOLS) -> ToolCallConstraint:
    factory = ConstraintFactory(tokenizer, len(tokenizer))
    schema = format_.schema(tools, allows_many=True)
    constraint = to_tool_call_constraint(factory, schema, format_.begin, Detokenizer(tokenizer, keeps_special=True))
    assert constraint is not None
    return constraint


def write(constraint: ToolCallConstraint, tokenizer: Any, text: str) -> None:
    """Write a text of the model's choice, each token of which must be allowed."""
    for token in tokenizer(text)["input_ids"]:
        allowed = constraint.allowed(len(tokenizer))
        assert allowed is None or allowed[token]
        constraint.accept(token)


def continue_at_random(constraint: ToolCallConstraint, tokenizer: Any, seed: int) -> str:
    """Continue with any allowed tokens until all are allowed. Return the text."""
    numbers, tokens = random.Random(seed), []
    while (allowed := constraint.allowed(len(tokenizer))) is not None:
        tokens.append(numbers.choice(allowed.nonzero().flatten().tolist()))
        constraint.accept(tokens[-1])
        assert len(tokens) < 500
    return str(tokenizer.decode(tokens))


@pytest.mark.parametrize("begun", ["", "\n", '{"na', ' {"name": "weather", "arguments": {"city": "R'])
@pytest.mark.parametrize("make", [lambda: byte_tokenizer(None), merging_tokenizer], ids=["bytes", "merged"])
def test_every_call_matches_its_schema(make: Any, begun: str) -> None:
    tokenizer = make()
    constraint = start(tokenizer)
    for seed in range(5):
        write(constraint, tokenizer, f"I look.<tool_call>{begun}")
        call = json.loads(begun + continue_at_random(constraint, tokenizer, seed))
        assert call["name"] == "weather"
        assert call["arguments"]["city"] in ("Paris", "Rome")
        assert 1 <= call["arguments"]["days"] <= 9
        write(constraint, tokenizer, "\n</tool_call>\nAnything.")
        assert not constraint.is_complete


@pytest.mark.parametrize("format_", [HERMES, MISTRAL], ids=["hermes", "mistral"])
def test_every_constrained_call_can_be_streamed(format_: ToolFormat) -> None:
    tokenizer = byte_tokenizer(None)
    for seed in range(10):
        constraint, parser = start(tokenizer, format_), ToolCallParser(format_, streams=True)
        write(constraint, tokenizer, format_.begin)
        text = format_.begin + continue_at_random(constraint, tokenizer, seed) + format_.end
        deltas = [delta for character in text for delta in parser.push(character)[1]]
        names = [delta.name for delta in deltas if delta.name]
        assert names == ["weather"] * len(names)
        assert parser.flush() == ("", [])
        assert not parser.is_cut
        for index in range(len(names)):
            parts = [delta.arguments for delta in deltas if delta.index == index]
            assert len(parts) > 10
            assert json.loads("".join(parts))["city"] in ("Paris", "Rome")


def test_a_list_of_calls() -> None:
    tokenizer = byte_tokenizer(None)
    constraint = start(tokenizer, MISTRAL)
    write(constraint, tokenizer, '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Rome", "days": 1}}')
    allowed = constraint.allowed(len(tokenizer))
    assert allowed is not None
    assert {tokenizer.decode([token]) for token in allowed.nonzero().flatten().tolist()} == {",", "]"}


def test_text_without_a_call_is_free() -> None:
    tokenizer = byte_tokenizer(None)
    constraint = start(tokenizer)
    write(constraint, tokenizer, "a <tool_ call> b <tool_call")
    assert constraint.allowed(len(tokenizer)) is None


def test_a_schema_that_cannot_be_enforced_leaves_calls_free() -> None:
    tokenizer = byte_tokenizer(None)
    tools = [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "not": {"type": "array"}}}}
    ]
    factory = ConstraintFactory(tokenizer, len(tokenizer))
    assert to_tool_call_constraint(factory, HERMES.schema(tools), HERMES.begin, Detokenizer(tokenizer)) is None


def test_references_begin_at_the_parameters_of_their_tool() -> None:
    """Pydantic describes nested models so. Each tool has a definition of the same name."""
    tokenizer = byte_tokenizer(None)
    tools = [
        {
            "type": "function",
            "function": {
                "name": name,
                "parameters": {
                    "type": "object",
                    "properties": {"place": {"$ref": "#/$defs/Place"}},
                    "required": ["place"],
                    "additionalProperties": False,
                    "$defs": {"Place": {"enum": [place]}},
                },
            },
        }
        for name, place in (("fly", "Rome"), ("drive", "Paris"))
    ]
    for name, place in (("fly", "Rome"), ("drive", "Paris")):
        begun = f'{{"name": "{name}", "arguments": {{"place": '
        constraint = start(tokenizer, HERMES, tools)
        write(constraint, tokenizer, f"<tool_call>{begun}")
        call = json.loads(begun + continue_at_random(constraint, tokenizer, 0))
        assert call == {"name": name, "arguments": {"place": place}}
    forced = ConstraintFactory(tokenizer, len(tokenizer)).from_schema(HERMES.schema(tools), "tools")
    for token in tokenizer('{"name": "fly", "arguments": {"place": "')["input_ids"]:
        forced.accept(token)
    allowed = forced.allowed(len(tokenizer)).nonzero().flatten().tolist()
    assert [tokenizer.decode([token]) for token in allowed] == ["R"]


def special_tokenizer() -> Any:
    """Return a tokenizer that has the marks as tokens of their own."""
    tokenizer = byte_tokenizer(None)
    tokenizer.add_tokens(["<tool_call>", "</tool_call>", "[TOOL_CALLS]"], special_tokens=True)
    return tokenizer


@pytest.mark.parametrize("make", [lambda: byte_tokenizer(None), special_tokenizer], ids=["text", "special"])
@pytest.mark.parametrize("format_", [HERMES, MISTRAL, BARE], ids=["hermes", "mistral", "bare"])
def test_an_answer_in_json_or_calls(make: Any, format_: ToolFormat) -> None:
    tokenizer = make()
    properties = {"ok": {"type": "boolean"}}
    answer = {"type": "object", "properties": properties, "required": ["ok"], "additionalProperties": False}
    call = json.dumps({"name": "weather", format_.arguments: {"city": "Rome", "days": 1}})
    body = f"[{call}]" if format_.is_list else call
    block = f"{format_.begin}{body}{format_.end}"
    calls = [block, f"{format_.begin}\n{body}\n{format_.end}\n{block}"] if format_.end else [block]
    for text, is_valid in [('{"ok": true}', True), *((text, True) for text in calls), ("It is sunny.", False)]:
        factory = ConstraintFactory(tokenizer, len(tokenizer))
        constraint = to_choice_constraint(factory, answer, format_.schema(TOOLS, allows_many=True), format_)
        accepted = True
        for token in tokenizer(text)["input_ids"]:
            accepted = accepted and bool(constraint.allowed(len(tokenizer))[token])
            if accepted:
                constraint.accept(token)
        assert accepted == is_valid, text
        assert not is_valid or constraint.is_complete or constraint.allowed(len(tokenizer))[tokenizer.eos_token_id]


def test_an_invalid_schema_is_named_by_its_parameter() -> None:
    tokenizer = byte_tokenizer(None)
    factory, invalid = ConstraintFactory(tokenizer, len(tokenizer)), {"type": "object", "not": {"type": "array"}}
    for answer, call, param in (({}, invalid, "tools"), (invalid, {}, "response_format")):
        with pytest.raises(InvalidRequestError) as caught:
            to_choice_constraint(factory, answer, call, HERMES)
        assert caught.value.param == param
