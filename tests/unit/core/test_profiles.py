"""Parameter profiles, their changes to requests and their list of adaptations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openai_compat.core.errors import UnsupportedParameterError
from openai_compat.core.profiles import Profile, apply_profile, to_header

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
