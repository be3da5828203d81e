"""Parameter profiles, their changes to requests and their list of adaptations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openai_compat.core.errors import UnsupportedParameterError
from openai_compat.core.profiles import PROFILES, Profile, apply_profile, to_header

PROFILE = Profile(
    drop=frozenset({"user", "messages.name"}),
    rename={"max_completion_tokens": "max_tokens"},
    emulate=frozenset({"stream_options"}),
    roles={"developer": "system"},
)


def adapted(**payload: Any) -> tuple[dict[str, Any], dict[str, str]]:
    changed, adaptations = apply_profile(PROFILE, payload, "m")
    return dict(changed), adaptations


def test_listed_parameters_are_adapted_and_reported() -> None:
    changed, adaptations = adapted(
        model="m",
        user="u",
        max_completion_tokens=5,
        stream_options={"include_usage": True},
        messages=[{"role": "developer", "content": "x", "name": "n"}, {"role": "user", "content": "y"}],
    )
    messages = [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]
    assert changed == {"model": "m", "max_tokens": 5, "messages": messages}
    assert to_header(adaptations) == (
        "user=dropped, max_completion_tokens=max_tokens, stream_options=emulated, messages.name=dropped, "
        "messages.role=system"
    )


def test_a_request_that_needs_no_change_is_the_same_object() -> None:
    payload = {"model": "m", "messages": [{"role": "user", "content": "y"}], "temperature": 1}
    assert apply_profile(PROFILE, payload, "m") == (payload, {})
    assert apply_profile(PROFILE, payload, "m")[0] is payload


def test_a_null_parameter_is_removed_and_not_reported() -> None:
    assert adapted(model="m", user=None, max_completion_tokens=None) == ({"model": "m"}, {})
    assert apply_profile(Profile(drop=frozenset({"user"}), strict=True), {"user": None, "n": 1}, "m") == ({"n": 1}, {})


def test_the_upstreams_name_wins_over_a_renamed_parameter() -> None:
    assert adapted(max_completion_tokens=5, max_tokens=6) == ({"max_tokens": 6}, {"max_completion_tokens": "dropped"})
    assert adapted(max_completion_tokens=5, max_tokens=None)[0] == {"max_tokens": 5}


def test_a_strict_profile_rejects_the_parameter_by_name() -> None:
    strict = replace(PROFILE, strict=True)
    for payload in ({"user": "u"}, {"max_completion_tokens": 5}, {"stream_options": {"include_usage": True}}):
        with pytest.raises(UnsupportedParameterError) as refusal:
            apply_profile(strict, payload, "m")
        assert refusal.value.param == next(iter(payload))


def test_databricks_gets_the_keys_of_messages_that_it_knows() -> None:
    """It refuses all others, also those of an answer that the client sends back (litellm#36931)."""
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "x", "name": "n", "x\r\ny: 1": 2},
        {"role": "assistant", "content": None, "refusal": None, "reasoning_content": "hm", "tool_calls": [call]},
        {"role": "tool", "content": "y", "tool_call_id": "a"},
    ]
    changed, adaptations = apply_profile(PROFILES["databricks"], {"messages": messages}, "m")
    assert changed["messages"] == [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "y", "tool_call_id": "a"},
    ]
    expected = {"messages.name": "dropped", "messages.?": "dropped", "messages.reasoning_content": "dropped"}
    assert adaptations == expected


def test_databricks_gets_the_deprecated_function_call_as_a_tool_call() -> None:
    function = {"name": "f", "arguments": "{}"}
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "function_call": function},
        {"role": "function", "name": "f", "content": "y"},
    ]
    changed, adaptations = apply_profile(PROFILES["databricks"], {"messages": messages}, "m")
    call, result = changed["messages"][1:]
    assert call == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
    }
    assert result == {"role": "tool", "content": "y", "tool_call_id": "call_1"}
    assert adaptations == {"messages.function_call": "tool_calls", "messages.role": "tool"}


def test_messages_of_known_keys_go_to_databricks_as_they_are() -> None:
    payload = {"messages": [{"role": "user", "content": "x"}]}
    assert apply_profile(PROFILES["databricks"], payload, "m")[0] is payload
